"""Images to project: any mode and size becomes what the model would have been trained on."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.errors import SganError
from stylegan_cli.inversion.targets import read_mask, read_targets
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import SnapshotInfo


def info(channels=3, height=16, width=16, filter="none", pack_filter=None):
    spec = DataSpec("x", "", 1, height, width, channels, 2 * height, 2 * width, filter=filter, pack_filter=pack_filter)
    return SnapshotInfo(StyleGAN2Config(height, width, channels=channels), data=spec)


@pytest.fixture
def noisy(tmp_path):
    def make(name, shape):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name, pixels

    return make


def test_a_image_of_the_size_is_taken_as_it_is(noisy):
    path, pixels = noisy("a.png", (16, 16, 3))
    (target,) = read_targets([path], info())
    assert torch.equal(target, (torch.from_numpy(pixels).permute(2, 0, 1).float() - 127.5) / 127.5)
    assert target.min() >= -1 and target.max() <= 1


def test_it_is_resized_as_the_data_was(noisy):
    path, pixels = noisy("a.png", (32, 32, 3))
    boxed = pixels.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3)).transpose(2, 0, 1)
    for spec, same in ((info(filter="box"), True), (info(pack_filter="box"), True), (info(), False)):
        found = read_targets([path], spec)[0].numpy() * 127.5 + 127.5
        assert (np.abs(found - boxed).max() <= 1) == same


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (30, 40, 4), (7, 9, 3)])
def test_any_mode(noisy, channels, shape):
    path, _ = noisy("a.png", shape)
    for crop in ("center", "none"):
        target = read_targets([path], info(channels, 12, 24), crop)
        assert target.shape == (1, channels, 12, 24) and target.isfinite().all()


def test_what_cannot_be_used(noisy, tmp_path):
    long, _ = noisy("long.png", (20, 5000, 3))
    with pytest.raises(SganError, match="5000 x 20"):
        read_targets([long], info())
    (tmp_path / "text.png").write_text("no image")
    good, _ = noisy("good.png", (16, 16, 3))
    for bad in (tmp_path / "text.png", tmp_path / "missing.png", tmp_path, "a\0b"):
        with pytest.raises(SganError):
            read_targets([good, bad], info())


def test_a_mask(tmp_path):
    half = np.zeros((16, 16), np.uint8)
    half[:8] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", info())
    assert mask.shape == (1, 1, 16, 16) and torch.equal(mask[0, 0], torch.from_numpy(half > 0).float())
    Image.fromarray(half * 0).save(tmp_path / "black.png")
    with pytest.raises(SganError, match="black"):
        read_mask(tmp_path / "black.png", info())


def test_a_model_that_knows_no_data(noisy):
    path, _ = noisy("a.png", (16, 16, 3))
    assert read_targets([path], dataclasses.replace(info(), data=None)).shape == (1, 3, 16, 16)
