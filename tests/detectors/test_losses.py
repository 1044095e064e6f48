"""Loading of losses."""

import functools
from pathlib import Path

import pytest
import torch

from stylegan_cli.detectors.losses import load_loss
from stylegan_cli.errors import SganError
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator


def test_unavailable_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    D = build_discriminator(DiscriminatorConfig(16, 16, channel_base=64, channel_max=8))
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
    assert load("pixel", None).name == "pixel" and load("discriminator", D.features).name == "discriminator"
