"""Annotated images: masks at the size of the model, transparent pixels, metadata, bad input."""

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.images import save_image
from stylegan_cli.errors import SganError
from stylegan_cli.inversion.annotations import read_annotations, recorded_options
from stylegan_cli.inversion.segmentation import UNKNOWN
from stylegan_cli.models.label_space import LabelSpace
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.generate import SamplingOptions, image_metadata
from stylegan_cli.snapshot import SnapshotInfo

INFO = SnapshotInfo(StyleGAN2Config(16, 16), None)
BLACK, RED, WHITE, NOTHING = (0, 0, 0, 255), (255, 0, 0, 255), (255, 255, 255, 255), (9, 9, 9, 0)


def halves(size=16, left=BLACK, right=RED):
    pixels = np.empty((size, size, 4), np.uint8)
    pixels[:, : size // 2], pixels[:, size // 2 :] = left, right
    return pixels


def write(folder, name="a", mask=None, size=None):
    folder.mkdir(exist_ok=True)
    mask = halves() if mask is None else mask
    side = size or mask.shape[1::-1]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side[1], side[0], 3), np.uint8)).save(
        folder / f"{name}.png"
    )
    Image.fromarray(mask).save(folder / f"{name}.mask.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "annotated"


def test_images_and_masks(folder):
    write(folder, "b")
    write(folder, "a", halves(left=RED, right=WHITE))
    found = read_annotations(folder, INFO)
    assert [p.name for p in found.paths] == ["a.png", "b.png"] and not found.warnings
    assert found.images.shape == (2, 3, 16, 16) and found.classes == ("#000000", "#ff0000", "#ffffff")
    assert found.labels[0, :, :8].unique().tolist() == [1] and found.labels[0, :, 8:].unique().tolist() == [2]
    assert found.labels[1, :, :8].unique().tolist() == [0] and found.labels[1, :, 8:].unique().tolist() == [1]


def test_larger_masks(folder):
    """A pixel of the model has the class of most annotated pixels in it, even if that is one; the center is cropped."""
    mask = np.zeros((64, 128, 4), np.uint8)
    mask[0, 32] = WHITE  # the first pixel of the crop
    mask[4:8, 36:40] = BLACK
    mask[4:8, 36] = RED
    mask[20, 10] = RED  # outside of the crop
    found = read_annotations(write(folder, mask=mask), INFO)
    assert found.labels[0, 0, 0] == 2 and found.labels[0, 1, 1] == 0
    assert (found.labels != UNKNOWN).sum() == 2


def test_smaller_masks(folder):
    found = read_annotations(write(folder, mask=halves(8)), INFO)
    assert found.labels[0, :, :8].unique().tolist() == [0] and found.labels[0, :, 8:].unique().tolist() == [1]


def test_half_transparent_edges_are_not_annotated(folder):
    mask = halves()
    mask[:, 7] = (100, 0, 0, 128)
    found = read_annotations(write(folder, mask=mask), INFO)
    assert found.classes == ("#000000", "#ff0000") and (found.labels[0, :, 7] == UNKNOWN).all()


def test_padding_is_not_annotated(folder):
    mask = np.empty((8, 16, 4), np.uint8)
    mask[:4], mask[4:] = BLACK, RED
    found = read_annotations(write(folder, mask=mask), INFO, "pad", "white")
    assert (found.labels[0, :4] == UNKNOWN).all() and (found.labels[0, 4:12] != UNKNOWN).all()


def test_few_pixels_of_a_color(folder):
    mask = halves()
    mask[3, 3] = WHITE
    (warning,) = read_annotations(write(folder, mask=mask), INFO).warnings
    assert "#ffffff (1)" in warning and "smoothed edges" in warning


def test_bad_folders(tmp_path, folder):
    def refused(message, **more):
        with pytest.raises(SganError, match=message) as error:
            read_annotations(folder, INFO, **more)
        assert "\n" not in str(error.value)

    refused("does not exist")
    folder.write_text("")
    refused("is not a folder")
    folder.unlink()
    folder.mkdir()
    refused("has no annotated image")
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    refused(r"a.png has no mask: .*a.mask.png does not exist")
    (folder / "a.png").rename(folder / "b.mask.png")
    refused(r"b.mask.png has no image: .*b.png does not exist")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (halves(right=BLACK), "have only the color #000000"),
        (halves(left=NOTHING, right=NOTHING), "no annotated pixel: all are transparent"),
        (np.dstack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3), "256 colors, but there can be at most 64"),
    ],
)
def test_bad_masks(folder, mask, message):
    with pytest.raises(SganError, match=message):
        read_annotations(write(folder, mask=mask), INFO)


def test_one_mask_without_annotation(folder):
    write(folder, "a")
    with pytest.raises(SganError, match="b.mask.png has no annotated pixel"):
        read_annotations(write(folder, "b", halves(left=NOTHING, right=NOTHING)), INFO)


def test_another_size_than_the_image(folder):
    with pytest.raises(SganError, match=r"has 16x16 pixels \(height x width\), but its image has 16x32"):
        read_annotations(write(folder, size=(32, 16)), INFO)


def test_a_jpeg(folder):
    write(folder)
    Image.new("RGB", (16, 16)).save(folder / "a.mask.png", "JPEG")
    with pytest.raises(SganError, match="is a JPEG, whose edges have other colors"):
        read_annotations(folder, INFO)


def test_a_damaged_mask(folder):
    write(folder)
    (folder / "a.mask.png").write_bytes((folder / "a.mask.png").read_bytes()[:60])
    with pytest.raises(SganError, match="a.mask.png cannot be read"):
        read_annotations(folder, INFO)


def test_recorded_options(tmp_path):
    image, classes = torch.zeros(3, 8, 8, dtype=torch.uint8), LabelSpace(3)

    def read(space=classes, **metadata):
        save_image(image, tmp_path / "a.png", metadata=metadata)
        return recorded_options(tmp_path / "a.png", "f00", space)

    written = SamplingOptions(0.7, 3, 2, "none", precision="bf16", translate=(0.25, -0.5), rotate=30.0)
    text = image_metadata("f00", written, ["sgan", "generate"], seed=7)
    assert read(**text) == (7, written)
    assert read(seed="7", model="f00") == (7, SamplingOptions(precision="fp32"))
    vectors, own = LabelSpace(2, vectors=((0.5, -2.0),)), {"seed": "7", "model": "f00"}
    assert read(vectors, **own, **{"class": "0.5,-2"})[1].class_index == (0.5, -2.0)
    assert read(LabelSpace(1, vectors=((0.5,),)), **own, **{"class": "1"})[1].class_index == (1.0,)
    assert read(LabelSpace(2, ("1", "0")), **own, **{"class": "1"})[1].class_index == 1, "an index, not the name"
    for metadata in ({}, {"model": "f00"}, {"seed": "7-1", "model": "f00"}, {"seed": "\u0667", "model": "f00"}):
        assert read(**metadata) is None
    for model in ({}, {"model": "e00"}):
        with pytest.raises(SganError, match="It is of another model"):
            read(seed="7", **model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "99999999999"),
        ("trunc", "nan"),
        ("trunc", "x"),
        ("trunc_cutoff", "-1"),
        ("class", "1,x"),
        ("noise_mode", "?"),
        ("precision", "fp8"),
        ("translate", "0.5"),
        ("translate", "(1, )"),
        ("rotate", "left"),
    ],
)
def test_damaged_records(tmp_path, name, value):
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    save_image(image, tmp_path / "a.png", metadata={"seed": "7", "model": "f00", name: value})
    with pytest.raises(SganError, match="not valid"):
        recorded_options(tmp_path / "a.png", "f00", LabelSpace(3))
