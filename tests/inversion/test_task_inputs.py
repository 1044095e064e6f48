"""What the encoder of a task sees of a user's images, and what is kept of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.task_inputs import read_inputs
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.degrade import enlarge, make_task, reduce
from stylegan_cli.snapshot import SnapshotInfo

ALL = [("superres", {}), ("inpaint", {}), ("sketch", {}), ("restore", {}), ("pairs", {"channels": 1})]


def info(channels=3, height=16, width=24):
    return SnapshotInfo(StyleGAN2Config(height, width, channels=channels), data=None)


@pytest.fixture
def noisy(tmp_path):
    def make(name, shape, mode=None):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name, torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1)

    return make


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("name", "options"), ALL, ids=[name for name, _ in ALL])
@pytest.mark.parametrize("shape", [(16, 24, 3), (40, 40), (5, 7, 4), (16, 40, 3)])
def test_any_size_and_mode(noisy, tmp_path, channels, name, options, shape):
    path, _ = noisy("a.png", shape)
    mask, _ = noisy("mask.png", (16, 24))
    task = make_task(name, options)
    read = read_inputs(task, [path, path], info(channels), mask=mask if name == "inpaint" else None)
    assert read.images.shape == (2, 3, 16, 24) and read.images.dtype == torch.uint8
    assert read.inputs.shape == (2, task.inputs(channels), 16, 24)
    assert read.inputs.min() >= -1 and read.inputs.max() <= 1


def test_super_resolution(noisy):
    """An image of the reduced size is taken as it is; a larger one is reduced as in training."""
    task = make_task("superres", {"factor": 4})
    path, pixels = noisy("small.png", (4, 6, 3))
    read = read_inputs(task, [path], info())
    assert torch.equal(read.small * 127.5 + 127.5, pixels[None].float())
    assert torch.equal(read.inputs, enlarge(read.small, (16, 24)))
    path, pixels = noisy("large.png", (16, 24, 3))
    read = read_inputs(task, [path], info())
    assert torch.equal(read.images[0], pixels)
    assert (read.small * 127.5 + 127.5 - reduce(pixels[None].float(), 4)).abs().max() <= 1
    assert (read.inputs - task(pixels[None] / 127.5 - 1, 0, torch.arange(1))).abs().max() < 0.02
    shifted = (pixels[None].int() // 2 + 20).to(torch.uint8)
    by_hand = (reduce(shifted.float(), 4) - (read.small * 127.5 + 127.5)).square().mean().sqrt() / 255
    assert torch.allclose(read.difference(shifted)[0], by_hand) and read.difference(pixels[None])[0] < 0.003


def test_transparent_images_are_reduced_as_in_training(noisy):
    """Colors are weighted by alpha by the file reader and by the task; what is invisible is not measured."""
    task, (path, pixels) = make_task("superres", {"factor": 4}), noisy("a.png", (16, 24, 4))
    read = read_inputs(task, [path], info(4))
    assert (read.inputs - task(pixels[None] / 127.5 - 1, 0, torch.arange(1))).abs().max() < 0.03
    hidden = pixels[None].clone()
    hidden[:, 3], hidden[:, 3, :, 12:] = 255, 0
    path.unlink()
    Image.fromarray(hidden[0].permute(1, 2, 0).numpy()).save(path)
    hidden[:, :3, :, 12:] = 77
    assert read_inputs(task, [path], info(4)).difference(hidden)[0] < 0.003


@pytest.mark.parametrize(("shape", "fits"), [((160, 241), True), ((16, 24), True), ((40, 40), False)])
def test_masks_of_another_shape(noisy, shape, fits):
    """As the image, of any size, or as large as the model."""
    (path, _), (mask, _) = noisy("photo.png", (80, 120, 3)), noisy("mask.png", shape)
    task = make_task("inpaint", {})
    if fits:
        assert read_inputs(task, [path], info(), mask=mask).given is not None
        return
    with pytest.raises(SganError, match="is 40x40 .* but .*photo.png is 80x120"):
        read_inputs(task, [path], info(), mask=mask)


def test_given_pixels_are_kept_exactly(noisy, tmp_path):
    """By a mask, or the transparency of the image."""
    path, pixels = noisy("a.png", (16, 24, 3))
    holes = torch.zeros(16, 24, dtype=torch.bool)
    holes[3:9, 5:20] = True
    Image.fromarray(np.where(holes, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")
    alpha = torch.where(holes, torch.randint(0, 255, (16, 24)), 255).to(torch.uint8)
    Image.fromarray(torch.cat([pixels, alpha[None]]).permute(1, 2, 0).numpy()).save(tmp_path / "b.png")
    results = torch.full((1, 3, 16, 24), 9, dtype=torch.uint8)
    task = make_task("inpaint", {})
    for read in (
        read_inputs(task, [path], info(), mask=tmp_path / "mask.png"),
        read_inputs(task, [tmp_path / "b.png"], info()),
    ):
        assert torch.equal(read.inputs[0, 3] < 0, holes)
        assert (read.inputs[0, :3, holes] == 0).all(), "nothing of the hole is seen"
        kept = read.keep_given(results)[0]
        assert torch.equal(kept[:, ~holes], pixels[:, ~holes]) and (kept[:, holes] == 9).all()


def test_padding_is_a_hole(noisy, tmp_path):
    path, _ = noisy("a.png", (16, 16, 4))
    with Image.open(path) as image:
        image.putalpha(255)
        image.save(path)
    read = read_inputs(make_task("inpaint", {}), [path], info(), crop="pad")
    assert torch.equal(read.given[0, 0].bool(), ((torch.arange(24) >= 4) & (torch.arange(24) < 20)).expand(16, 24))


@pytest.mark.parametrize(
    ("pixels", "channels", "message"),
    [
        (np.zeros((16, 24, 3), np.uint8), 3, "does not say which of its pixels are missing"),
        (np.zeros((16, 24, 4), np.uint8), 4, "does not say which of its pixels are missing"),
        (np.full((16, 24, 4), 255, np.uint8), 3, "has no transparent pixel: nothing is missing"),
        (np.zeros((16, 24, 4), np.uint8), 3, "has no opaque pixel: nothing is given"),
    ],
)
def test_images_without_a_hole(tmp_path, pixels, channels, message):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(SganError, match=message):
        read_inputs(make_task("inpaint", {}), [tmp_path / "a.png"], info(channels))


@pytest.mark.parametrize(("level", "message"), [(255, "entirely white: nothing is missing"), (0, "entirely black")])
def test_masks_without_a_hole(noisy, tmp_path, level, message):
    path, _ = noisy("a.png", (16, 24, 3))
    Image.new("L", (24, 16), level).save(tmp_path / "mask.png")
    with pytest.raises(SganError, match=message):
        read_inputs(make_task("inpaint", {}), [path], info(), mask=tmp_path / "mask.png")


def test_class_maps(tmp_path):
    """Of any size, without other colors at edges; colors that are not classes are refused."""
    colors = np.array([[0, 0, 0], [255, 128, 0]], np.uint8)
    chosen = np.random.default_rng(0).integers(0, 2, (40, 60))
    Image.fromarray(colors[chosen]).save(tmp_path / "a.png")
    task = make_task("mask", {"classes": ["#000000", "#ff8000"]})
    read = read_inputs(task, [tmp_path / "a.png"], info())
    assert read.inputs.shape == (1, 2, 16, 24) and set(read.inputs.unique().tolist()) == {-1, 1}
    assert {tuple(c) for c in read.images[0].flatten(1).t().tolist()} == {(0, 0, 0), (255, 128, 0)}
    Image.fromarray(colors[chosen]).save(tmp_path / "a.jpg")
    with pytest.raises(SganError, match="which is not the color of a class"):
        read_inputs(task, [tmp_path / "a.jpg"], info())


def test_another_aspect_ratio(noisy):
    path, _ = noisy("a.png", (4, 90, 3))
    for name, options in (*ALL, ("mask", {"classes": ["#000000", "#ffffff"]})):
        if name != "inpaint":
            with pytest.raises(SganError, match="aspect ratio"):
                read_inputs(make_task(name, options), [path], info())
