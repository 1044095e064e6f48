"""Images are saved with their metadata; grids and sheets place every image correctly."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from stylegan_cli.data import images
from stylegan_cli.data.images import grid_columns, image_grid, labeled_grid, read_metadata, save_image, to_uint8
from stylegan_cli.errors import SganError

METADATA = {"seed": "17", "command": 'sgan generate --seeds "17"', "note": "ä ☃\nzwei"}


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def flat(*colors, size=(4, 6)):
    """One image per color: uint8 [N, C, h, w]."""
    return torch.stack([torch.tensor(c, dtype=torch.uint8)[:, None, None].expand(-1, *size) for c in colors])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip_is_exact(tmp_path, channels):
    image = noise(channels, 9, 5)
    save_image(image, tmp_path / "a.png", metadata=METADATA)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.atleast_3d(np.asarray(opened)).transpose(2, 0, 1), image)
    assert read_metadata(tmp_path / "a.png") == METADATA


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_metadata_of_other_formats(tmp_path, suffix, channels):
    save_image(noise(channels, 16, 16).numpy(), tmp_path / f"a.{suffix}", metadata=METADATA)
    assert read_metadata(tmp_path / f"a.{suffix}") == METADATA
    save_image(noise(channels, 16, 16), tmp_path / f"b.{suffix}")
    assert read_metadata(tmp_path / f"b.{suffix}") == {}


def test_format_may_differ_from_the_suffix(tmp_path):
    save_image(noise(3, 8, 8), tmp_path / "a.tmp", format="webp")
    with Image.open(tmp_path / "a.tmp") as opened:
        assert opened.format == "WEBP"
    with pytest.raises(SganError, match="gif"):
        save_image(noise(3, 8, 8), tmp_path / "a.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tmp"]


def test_unwritable_path_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SganError, match="Cannot write"):
        save_image(noise(3, 8, 8), tmp_path / "file" / "a.png")


def test_metadata_of_a_file_that_is_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("no")
    for name in ("a.png", "b.png"):
        with pytest.raises(SganError, match="not a readable image"):
            read_metadata(tmp_path / name)


def test_to_uint8():
    x = torch.tensor([-5.0, -1.0, -0.5, 0.0, 0.5, 0.992, 1.0, 5.0]).reshape(1, 1, 2, 4)
    assert to_uint8(x).flatten().tolist() == [0, 0, 64, 128, 191, 254, 255, 255]
    assert to_uint8(x.half()).dtype == torch.uint8


def test_grid_places_images_row_by_row():
    sheet = image_grid(flat((10, 0, 0), (20, 0, 0), (30, 0, 0)), 2, pad=1, scale=2)
    assert sheet.shape == (3, 2 * 8 + 3, 2 * 12 + 3)
    assert (sheet[0, 1:9, 1:13] == 10).all()
    assert (sheet[0, 1:9, 14:26] == 20).all()
    assert (sheet[0, 10:18, 1:13] == 30).all()
    assert (sheet[:, 10:18, 14:26] == 255).all() and (sheet[:, 0] == 255).all() and (sheet[:, :, 13] == 255).all()


def test_grid_with_alpha_has_transparent_gaps():
    sheet = image_grid(flat((1, 2, 3, 200)), 1, pad=2)
    assert sheet[3, 0, 0] == 0 and sheet[3, 3, 3] == 200


def test_grid_has_no_more_columns_than_images():
    assert image_grid(flat((1,), (2,)), 8).shape == (1, 4, 12)


def find_rectangle(sheet, color):
    """Return top, left, height, width of the only rectangle of that color."""
    y, x = torch.where((sheet == torch.tensor(color, dtype=torch.uint8)[:, None, None]).all(0))
    top, left, height, width = y.min().item(), x.min().item(), y.max() - y.min() + 1, x.max() - x.min() + 1
    assert len(y) == height * width, f"{color} is not a full rectangle"
    return top, left, height.item(), width.item()


@pytest.mark.parametrize(("size", "scale"), [((4, 6), 24), ((32, 32), 3), ((256, 128), 1)])
def test_labeled_grid_lines_up(size, scale):
    cells = flat(*[(100 + 10 * i, 0, 0) for i in range(6)], size=size).reshape(2, 3, 3, *size)
    rows, cols = flat((0, 90, 0), (0, 100, 0), size=size), flat((0, 0, 90), (0, 0, 100), (0, 0, 110), size=size)
    sheet = labeled_grid(cells, rows, cols, ["1", "a long label"], ["7", "8", "4294967295"])
    height, width = size[0] * scale, size[1] * scale
    for r in range(2):
        row = find_rectangle(sheet, (0, 90 + 10 * r, 0))
        assert row[2:] == (height, width)
        for k in range(3):
            col, cell = (
                find_rectangle(sheet, (0, 0, 90 + 10 * k)),
                find_rectangle(sheet, (100 + 10 * (3 * r + k), 0, 0)),
            )
            assert cell == (row[0], col[1], height, width)
            assert col[0] + height < cell[0] and row[1] + width < cell[1]
    first = find_rectangle(sheet, (0, 90, 0))
    assert (sheet[:, :, : first[1]] < 100).any(), "the rows have no label"
    assert (sheet[:, : find_rectangle(sheet, (0, 0, 90))[0]] < 100).any(), "the columns have no label"
    assert (sheet[:, :, -1] == 245).all() and (sheet[:, -1] == 245).all() and (sheet[:, :, 0] == 245).all()


def test_labels_wider_than_a_column_are_shortened():
    cells = flat((1, 1, 1), (2, 2, 2)).reshape(1, 2, 3, 4, 6)
    sheet = labeled_grid(cells, cells[0, :1], cells[0], ["r"], ["x" * 200, "y"])
    assert torch.equal(sheet[:, :, -1], torch.full_like(sheet[:, :, -1], 245))
    assert sheet.shape == labeled_grid(cells, cells[0, :1], cells[0], ["r"], ["z" * 300, "y"]).shape


@pytest.mark.parametrize("channels", [1, 4])
def test_labeled_grid_is_rgb(channels):
    cells = torch.zeros(1, 1, channels, 8, 8, dtype=torch.uint8)
    sheet = labeled_grid(cells, cells[0], cells[0], [0], [1])
    assert sheet.shape[0] == 3
    center = sheet[:, sheet.shape[1] - 60, sheet.shape[2] - 60]
    assert center.tolist() == ([0, 0, 0] if channels == 1 else [255, 255, 255])  # transparency becomes white


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (16, 4), (32, 8), (100, 10), (13, 4), (6, 2)])
def test_grid_columns(count, columns):
    assert grid_columns(count) == columns


def test_labels_in_other_scripts(monkeypatch):
    """In a font that has them, or escaped, but never as boxes that all look the same."""
    font, texts = images.font_for(["seed 7", "img_0"], 20)
    assert (font.getname()[0], texts) == (ImageFont.load_default(20).getname()[0], ["seed 7", "img_0"])
    monkeypatch.setattr(images, "_SYSTEM_FONTS", ())
    assert images.font_for(["кот", "a é"], 20)[1] == [r"\u043a\u043e\u0442", r"a \xe9"]
    assert images.font_for(["a\udcff", "b\n"], 20)[1] == [r"a\xff", r"b\n"]
    cells = torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8)
    first, second = (images.labeled_grid(cells, None, None, [name, "x"], ["y"]) for name in ("кот", "пёс"))
    assert not torch.equal(first, second)


def test_labels_in_a_font_of_the_system():
    try:
        ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    font, texts = images.font_for(["кот", "猫"], 20)
    assert texts[0] == "кот" and (texts[1] in ("猫", r"\u732b"))
    assert not images._missing(font, "кот")
