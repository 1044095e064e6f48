"""Pairs of images by name, and class maps: which are refused, and that classes are never mixed."""

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.pairs import MAX_CLASSES, class_index, color_codes, open_pairs
from stylegan_cli.errors import SganError

COLORS = np.array([[0, 0, 0], [255, 128, 0], [200, 200, 200]], np.uint8)
NAMES = ("a", "b", "c", "d")


def write(folder, names, shape, suffix=".png", make=None):
    rng = np.random.default_rng(len(names))
    folder.mkdir()
    for i, name in enumerate(names):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8) if make is None else make(rng, i)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}{suffix}")
    return folder


def classes(rng, i, size=(32, 48)):
    return COLORS[rng.integers(0, 3, size)]


@pytest.fixture
def images(tmp_path):
    return open_dataset(write(tmp_path / "images", NAMES, (16, 24, 3)))


def test_the_other_image_follows(images, tmp_path):
    """At the size of the first one; names match without folders and extensions, whatever the order of the files."""
    other = write(tmp_path / "other", ("2/a", "1/b", "4/c", "3/d"), (16, 24, 4), ".webp")
    pairs, found = open_pairs(images, str(other))
    assert found == () and len(pairs) == 4 and pairs.spec == images.spec and pairs.other.spec.channels == 4
    rows = pairs.images([2, 0])
    assert rows.shape == (2, 7, 16, 24) and torch.equal(rows[:, :3], images.images([2, 0]))
    for row, name in zip(rows, ("4/c", "2/a"), strict=True):
        expected = np.asarray(Image.open(other / f"{name}.webp").convert("RGBA")).transpose(2, 0, 1)
        assert np.array_equal(row[3:].numpy(), expected)
    assert pairs.labels([0]).shape == (1, 0)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b", "c", "e"), (*NAMES, "e")])
def test_names_that_do_not_match(images, tmp_path, names):
    other = write(tmp_path / "other", names, (16, 24, 3))
    with pytest.raises(SganError, match=r"has no image of the same name for 1 image of .*: [de]\.png\.$"):
        open_pairs(images, str(other))


@pytest.mark.parametrize("shape", [(8, 12, 3), (16, 16, 3)])
def test_another_shape(images, tmp_path, shape):
    with pytest.raises(SganError, match="cannot be enlarged|aspect ratio"):
        open_pairs(images, str(write(tmp_path / "other", NAMES, shape)))


def test_class_maps_are_not_averaged(images, tmp_path):
    """Each may be of another size; the pixel of the class in the middle of a block is taken."""
    sizes = [(32, 48), (16, 24), (160, 240), (8, 12)]
    maps = write(tmp_path / "maps", NAMES, None, make=lambda rng, i: classes(rng, i, sizes[i]))
    pairs, found = open_pairs(images, str(maps), class_maps=True)
    assert found == ("#000000", "#c8c8c8", "#ff8000")
    rows = pairs.images(range(4))
    assert rows.shape == (4, 4, 16, 24) and rows[:, 3].max() == 2
    index = class_index(color_codes(Image.open(maps / "b.png")), found, "b.png")
    assert np.array_equal(rows[1, 3].numpy(), index)
    again, same = open_pairs(images, str(maps), True, [*found, "#ffffff"])
    assert len(same) == 4 and torch.equal(again.images(range(4)), rows)
    with pytest.raises(SganError, match="has the color #ff8000, which is not the color of a class") as e:
        open_pairs(images, str(maps), True, found[:2])
    assert "#000000, #c8c8c8" in e.value.hint


@pytest.mark.parametrize(
    ("make", "suffix", "message"),
    [
        (classes, ".jpg", "a.jpg in .* is a JPEG, whose edges have other colors than its classes"),
        (lambda rng, i: rng.integers(0, 256, (16, 24), dtype=np.uint8), ".png", "have 256 colors, but .* at most 64"),
        (lambda rng, i: np.full((16, 24, 3), 7, np.uint8), ".png", "have only the color #070707"),
        (lambda rng, i: classes(rng, i, (16, 16)), ".png", "a.png in .* is 16x16 .* not the aspect ratio of 16x24"),
    ],
)
def test_class_maps_that_are_refused(images, tmp_path, make, suffix, message):
    maps = write(tmp_path / "maps", NAMES, None, suffix, make)
    with pytest.raises(SganError, match=message):
        open_pairs(images, str(maps), class_maps=True)


def test_the_largest_number_of_classes(images, tmp_path):
    def gray(rng, i):
        return np.arange(16 * 24).reshape(16, 24).astype(np.uint8) % MAX_CLASSES

    _, found = open_pairs(images, str(write(tmp_path / "maps", NAMES, None, make=gray)), class_maps=True)
    assert len(found) == MAX_CLASSES and found[1] == "#010101"
