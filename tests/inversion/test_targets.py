"""Reading of target images and masks."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

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


def test_an_image_of_the_same_size_is_not_changed(noisy):
    path, pixels = noisy("a.png", (16, 16, 3))
    (target,) = read_targets([path], info())
    assert torch.equal(target, (torch.from_numpy(pixels).permute(2, 0, 1).float() - 127.5) / 127.5)
    assert target.min() >= -1 and target.max() <= 1


def test_images_are_resized_like_the_dataset(noisy):
    path, pixels = noisy("a.png", (32, 32, 3))
    boxed = pixels.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3)).transpose(2, 0, 1)
    for spec, is_boxed in ((info(filter="box"), True), (info(pack_filter="box"), True), (info(), False)):
        resized = read_targets([path], spec)[0].numpy() * 127.5 + 127.5
        assert (np.abs(resized - boxed).max() <= 1) == is_boxed


def test_colors_are_those_of_a_dataset(noisy, tmp_path):
    """A profile is converted, as in packing."""
    _, pixels = noisy("a.png", (16, 16, 3))
    reversed_colors = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for primary, other in ((b"rXYZ", b"temp"), (b"bXYZ", b"rXYZ"), (b"temp", b"bXYZ")):
        reversed_colors = reversed_colors.replace(primary, other, 1)
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=reversed_colors)
    target = read_targets([tmp_path / "b.png"], info())[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    assert np.abs(target - pixels[..., ::-1]).max() <= 1.01


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (30, 40, 4), (7, 9, 3)])
def test_any_mode_and_size(noisy, channels, shape):
    path, _ = noisy("a.png", shape)
    for crop in ("center", "none"):
        target = read_targets([path], info(channels, 12, 24), crop)
        assert target.shape == (1, channels, 12, 24) and target.isfinite().all()


def test_invalid_images(noisy, tmp_path):
    long, _ = noisy("long.png", (20, 5000, 3))
    with pytest.raises(SganError, match=r"20x5000 \(height x width\)"):
        read_targets([long], info())
    (tmp_path / "text.png").write_text("no image")
    valid, _ = noisy("good.png", (16, 16, 3))
    for invalid in (tmp_path / "text.png", tmp_path / "missing.png", tmp_path, "a\0b"):
        with pytest.raises(SganError):
            read_targets([valid, invalid], info())


def test_mask(tmp_path):
    half = np.zeros((16, 16), np.uint8)
    half[:8] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", info())
    assert mask.shape == (1, 1, 16, 16) and torch.equal(mask[0, 0], torch.from_numpy(half > 0).float())
    Image.fromarray(half * 0).save(tmp_path / "black.png")
    Image.new("L", (16, 8), "white").save(tmp_path / "wide.png")
    padded = read_mask(tmp_path / "wide.png", info(), "pad")[0, 0]
    assert torch.equal(padded, torch.tensor([0.0] * 4 + [1.0] * 8 + [0.0] * 4)[:, None].expand(16, 16))
    with pytest.raises(SganError, match="black"):
        read_mask(tmp_path / "black.png", info())


def test_a_model_without_a_dataset(noisy):
    path, _ = noisy("a.png", (16, 16, 3))
    assert read_targets([path], dataclasses.replace(info(), data=None)).shape == (1, 3, 16, 16)
