"""Loading of losses."""

from pathlib import Path

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.projection import load_loss
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import Snapshot, SnapshotInfo


def test_unavailable_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    config = StyleGAN2Config(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    D = build_discriminator(DiscriminatorConfig(16, 16, channel_base=64, channel_max=8))
    with_D = Snapshot(build_generator(config), D, SnapshotInfo(config), Path("x"))
    without_D = Snapshot(build_generator(config), None, SnapshotInfo(config), Path("x"))
    with pytest.raises(SganError, match="offline|OFFLINE") as e:
        load_loss("lpips", with_D, torch.device("cpu"))
    assert "--detector" in e.value.hint and "--loss discriminator" in e.value.hint
    with pytest.raises(SganError) as e:
        load_loss("lpips", without_D, torch.device("cpu"))
    assert "--loss pixel" in e.value.hint
    with pytest.raises(SganError, match="no discriminator") as e:
        load_loss("discriminator", without_D, torch.device("cpu"))
    assert "--loss" in e.value.hint
    assert load_loss("pixel", without_D, torch.device("cpu")).name == "pixel"
