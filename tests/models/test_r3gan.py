"""R3GAN: both networks against plain definitions, their parameter counts, initial variance, and derivatives."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.detectors.distances import FeatureLoss
from stylegan_cli.errors import SganError
from stylegan_cli.models.r3gan.config import R3GANConfig, R3GANDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.summary import parameter_count

SMALL = {"channel_base": 128, "channel_max": 24, "group_channels": 8}


def make(c_dim=0, labels="projection", codes=0, size=(16, 16), **changes):
    torch.manual_seed(0)
    G = build_generator(R3GANConfig(*size, z_dim=5, c_dim=c_dim, **SMALL | changes))
    D = build_discriminator(R3GANDiscriminatorConfig(*size, c_dim=c_dim, labels=labels, codes=codes, **SMALL | changes))
    for network in (G, D):
        network.double().requires_grad_(False)
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return G, D


def taps_2d():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    return torch.outer(taps, taps)[None, None]


def resampled(x, up):
    kernel = taps_2d().expand(x.shape[1], 1, 4, 4)
    if up:
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def block(x, s, name, group_channels):
    y = F.leaky_relu(F.conv2d(x, s[f"{name}.conv0.weight"]) + s[f"{name}.bias0"][:, None, None], 0.2)
    groups = y.shape[1] // group_channels
    y = F.conv2d(y, s[f"{name}.conv1.weight"], padding=1, groups=groups) + s[f"{name}.bias1"][:, None, None]
    return x + F.conv2d(F.leaky_relu(y, 0.2), s[f"{name}.conv2.weight"])


@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_generator_against_its_definition(c_dim):
    G, _ = make(c_dim)
    s = G.state_dict()
    z, c = torch.randn(2, 5, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[[2, 0]] if c_dim else None
    w = z if c is None else torch.cat([z, c @ s["mapping.embed.weight"].t()], 1)
    x = s["synthesis.b4.basis.maps"] * (w @ s["synthesis.b4.basis.affine.weight"].t())[:, :, None, None]
    for level in (4, 8, 16):
        if level > 4:
            name = f"synthesis.b{level}.resample.conv.weight"
            x = resampled(F.conv2d(x, s[name]) if name in s else x, up=True)
        for i in range(2):
            x = block(x, s, f"synthesis.b{level}.blocks.{i}", 8)
    expected = F.conv2d(x, s["synthesis.torgb.weight"])
    torch.testing.assert_close(G(z, c), expected, rtol=1e-10, atol=1e-12)
    assert G.num_ws == 1 and torch.equal(G.mapping(z, c)[:, 0], w)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_discriminator_against_its_definition(c_dim):
    _, D = make(c_dim)
    s, image = D.state_dict(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    x = F.conv2d(image, s["fromrgb.weight"])
    for level in (16, 8, 4):
        for i in range(2):
            x = block(x, s, f"b{level}.blocks.{i}", 8)
        if level > 4:
            x = resampled(x, up=False)
            name = f"b{level}.resample.conv.weight"
            x = F.conv2d(x, s[name]) if name in s else x
    x = F.conv2d(x, s["head.maps"], groups=x.shape[1]).flatten(1) @ s["head.linear.weight"].t()
    c = torch.eye(3, dtype=torch.float64)[[2, 0]] if c_dim else None
    x = x if c is None else (x * (c @ s["embed.weight"].t())).sum(1, keepdim=True)
    torch.testing.assert_close(D(image, c), x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "base", "most", "group", "G_count", "D_count"),
    [(256, 24576, 768, 16, 23_057_952, 23_009_568), (64, 1 << 20, 1536, 32, 103_408_128, 103_311_360)],
)
def test_parameter_counts(size, base, most, group, G_count, D_count):
    """FFHQ-256: 23.06 M and 23.01 M (Huang et al. 2024, table 2); those of ImageNet-64 are the released program's."""
    options = {"channel_base": base, "channel_max": most, "group_channels": group}
    with torch.device("meta"):
        G = build_generator(R3GANConfig(size, size, **options))
        D = build_discriminator(R3GANDiscriminatorConfig(size, size, **options))
    assert (parameter_count(G), parameter_count(D)) == (G_count, D_count)


def test_initial_weights():
    """Those of the last layer of a block are 0; of the others gain^2 / fan-in, gain^2 = 2 / (1 + 0.2^2) / sqrt(V)."""
    torch.manual_seed(0)
    config = R3GANConfig(16, 16, channel_base=1024, channel_max=128)
    b = build_generator(config).synthesis.b8.blocks[0]
    variance = 2 / (1 + 0.2**2) / math.sqrt(6)
    assert not b.conv2.weight.any() and not b.bias0.any() and not b.bias1.any()
    assert b.conv0.weight.var().item() * 128 == pytest.approx(variance, rel=0.05)
    assert b.conv1.groups == 16 and b.conv1.weight.var().item() * 16 * 9 == pytest.approx(variance, rel=0.05)


def test_levels_that_run_in_half_precision():
    G, D = make()
    G, D = G.float(), D.float()
    x = G(torch.randn(2, 5))
    rounded = G(torch.zeros(2, 5) + 1, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, G(torch.zeros(2, 5) + 1))
    assert D(x, dtype=torch.bfloat16).dtype == torch.float32


def test_labels_and_codes_of_the_discriminator():
    _, D = make(c_dim=3, labels="classifier", codes=2)
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    logits, predictions = D.forward_with_classes(image)
    assert logits.shape == (2, 1) and predictions.shape == (2, 5)
    _, D = make(c_dim=3, codes=2)
    with pytest.raises(ValueError, match="it needs c"):
        D(image)
    assert D.forward_with_classes(image, torch.eye(3).double()[:2])[1].shape == (2, 2)
    with pytest.raises(SganError, match="discriminator labels must be"):
        R3GANDiscriminatorConfig(16, 16, labels="dot")
    with pytest.raises(ValueError, match="images must be"):
        D.features(image[:, :, :8])
    colors, *levels = D.features(image)
    assert [tuple(x.shape[1:]) for x in levels] == [(8, 16, 16), (16, 8, 8), (24, 4, 4)]
    assert torch.equal(colors[:, :3], image) and (colors[:, 3] == 0.5).all()


def test_colors_count_in_distances_and_gray_does_not_divide_by_zero():
    _, D = make()
    gray = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    for target in (gray, gray + 0.7):
        (a, *_), (b, *_) = D.features(target + 0.1), D.features(target)
        assert 0.01 < FeatureLoss(lambda x: [x]).distance([a], [b]).item() < 0.2


def test_first_and_second_derivatives():
    """Of the logits in the image and in the weights, as the penalties need them, also for other rectangles."""
    _, D = make(size=(6, 12))
    image = torch.randn(2, 3, 6, 12, dtype=torch.float64, requires_grad=True)
    weights = {
        name: p.detach().requires_grad_(True) for name, p in D.named_parameters() if "b12" in name or "head" in name
    }

    def logits(image, *values):
        return torch.func.functional_call(D, dict(zip(weights, values, strict=True)), (image,))

    assert torch.autograd.gradcheck(logits, (image, *weights.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(logits, (image, *weights.values()), fast_mode=True)


def test_any_width_can_be_grouped():
    for channels in (3, 8, 40, 100):
        config = dataclasses.replace(R3GANConfig(16, 16), channel_max=channels)
        assert 2 * channels % config.groups(channels) == 0
