"""Image files of every kind are decoded upright, in 8 bits, as gray, RGB or RGBA."""

import io
import struct
import zipfile

import numpy as np
import pytest
from _image_files import chunk, encoded, png16, tiff16
from PIL import Image, ImageOps, features

from stylegan_cli.data.codec import (
    ImageError,
    box_reduce,
    decode,
    ends_well,
    fit,
    from_array,
    png_bytes,
    read_header,
    to_array,
    to_channels,
)
from stylegan_cli.data.opening import open_source

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(40) * 6, 128), -1).astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_decoded_exactly(format):
    data = encoded(Image.fromarray(RGB), format)
    assert read_header(data) == read_header(png_bytes(Image.fromarray(RGB)))
    assert np.array_equal(np.asarray(decode(data)), RGB)


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_formats_are_decoded_approximately(format, options):
    image = decode(encoded(Image.fromarray(SMOOTH), format, **options))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - SMOOTH).mean() < 4


def test_palette_with_and_without_transparency():
    palette = Image.fromarray(SMOOTH).quantize(16, dither=Image.Dither.NONE)
    data = encoded(palette, "PNG")
    assert read_header(data).channels == 3
    assert np.array_equal(np.asarray(decode(data)), np.asarray(palette.convert("RGB")))
    data = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert read_header(data).channels == 4
    image = decode(data)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0))[3] == 0
    assert to_channels(image, 3).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "channels", "out"),
    [("1", 1, "L"), ("L", 1, "L"), ("LA", 4, "RGBA"), ("RGB", 3, "RGB"), ("RGBA", 4, "RGBA")],
)
def test_modes(mode, channels, out):
    data = encoded(Image.fromarray(SMOOTH).convert(mode), "PNG")
    assert read_header(data).channels == channels
    assert decode(data).mode == out


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(format):
    values = (np.arange(24 * 40).reshape(24, 40) * 68).astype(np.uint16)
    data = encoded(Image.fromarray(values), format)
    assert read_header(data).channels == 1
    assert np.array_equal(np.asarray(decode(data)), np.round(values / 257).astype(np.uint8))


@pytest.mark.parametrize("make", [png16, tiff16])
def test_16_bit_color(make):
    values = RGB.astype(np.uint16) * 257
    data = make(values)
    assert (read_header(data).height, read_header(data).width, read_header(data).channels) == (24, 40, 3)
    assert np.abs(np.asarray(decode(data)).astype(int) - RGB).max() <= 1


def test_16_bit_alpha():
    values = np.concatenate([RGB, RGB[..., :1]], -1).astype(np.uint16) * 257
    assert np.abs(np.asarray(decode(png16(values))).astype(int) - values // 257).max() <= 1


def test_cmyk_jpeg():
    data = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    assert read_header(data).channels == 3
    assert np.abs(np.asarray(decode(data)).astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, format):
    upright = Image.fromarray(SMOOTH)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(upright, format, exif=exif)
    image = decode(data)
    with Image.open(io.BytesIO(data)) as opened:
        expected = ImageOps.exif_transpose(opened)
    assert image.size == expected.size == ((24, 40) if orientation >= 5 else (40, 24))
    assert (read_header(data).width, read_header(data).height) == image.size
    assert np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    red, _, blue = to_channels(decode(data), 3).getpixel((8, 8))
    assert red > 240 and blue < 15


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50, b"GIF89a"])
def test_non_images_are_rejected(data):
    with pytest.raises(ImageError):
        read_header(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_rejected(format):
    data = encoded(Image.fromarray(RGB), format)
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])


@pytest.mark.skipif(not features.check("avif"), reason="no AVIF in this Pillow")
def test_damaged_avif_is_rejected():
    """Its decoder has exceptions of its own."""
    data = encoded(Image.fromarray(RGB), "AVIF")
    decode(data)
    refused = 0
    for start in range(0, len(data), 7):
        try:
            decode(data[:start] + b"\xff\x00\xff" + data[start + 3 :])
        except ImageError:
            refused += 1
    assert refused


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_pixel_bomb_is_rejected_by_its_header(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    for read in (read_header, decode):
        with pytest.raises(ImageError, match="pixels .*exceed the limit of 89.5 million"):
            read(bomb)


def test_max_pixels_can_be_raised(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow itself refuses twice as many
    assert decode(png_bytes(Image.fromarray(RGB)), max_pixels=960).size == (40, 24)


def test_max_pixels_is_enforced():
    with pytest.raises(ImageError, match="limit of 100;"):
        decode(png_bytes(Image.fromarray(RGB)), max_pixels=100)


def test_ends_well_detects_truncated_pngs():
    data = png_bytes(Image.fromarray(RGB))
    assert ends_well(data) and not ends_well(data[:-1]) and not ends_well(b"")


def test_fit_crops_the_center_without_resampling():
    image = fit(Image.fromarray(RGB), (24, 24), "center", "lanczos")
    assert np.array_equal(np.asarray(image), RGB[:, 8:32])


def test_fit_keeps_the_center_of_a_rectangle():
    image = fit(Image.fromarray(RGB), (12, 6), "center", "box")  # the central 24 x 12, halved
    expected = RGB[:, 14:26].astype(float).reshape(12, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(image) - expected).max() <= 1


@pytest.mark.parametrize("filter", [Image.Resampling.BOX, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("shape", [(61, 40, 3), (40, 61, 3), (50, 37, 4), (33, 80), (90, 31, 3), (40, 40, 3)])
def test_center_crop_is_that_of_nvidias_dataset_tool(shape, filter):
    """Its definition: slice an array, make it an image, resize it to a square."""
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    side, (h, w) = min(shape[:2]), shape[:2]
    cropped = pixels[(h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
    for size in (16, 31, 64):
        expected = np.asarray(Image.fromarray(cropped).resize((size, size), filter))
        result = fit(Image.fromarray(pixels), (size, size), "center", filter.name.lower())
        assert np.array_equal(np.asarray(result), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(12, 12), (10, 40), (48, 20), (24, 40), (7, 3)])
def test_padding_keeps_the_whole_image(size, mode):
    image = Image.fromarray(RGB).convert(mode)
    height, width = size
    scale = min(height / 24, width / 40)
    h, w = max(1, round(24 * scale)), max(1, round(40 * scale))
    top, left = (height - h) // 2, (width - w) // 2
    for pad in ("white", "#102030", "blur"):
        result = np.asarray(fit(image, size, "pad", "lanczos", pad))
        assert result.shape[:2] == size
        inner = np.asarray(image if (h, w) == (24, 40) else image.resize((w, h), Image.Resampling.LANCZOS))
        assert np.array_equal(result[top : top + h, left : left + w], inner)
        border = np.ones(size, bool)
        border[top : top + h, left : left + w] = False
        if pad == "blur":
            assert (np.abs(result[border].astype(float) - np.asarray(image, float).mean((0, 1))) < 64).all()
        else:
            assert (result[border] == np.asarray(Image.new(mode, (1, 1), pad))[0, 0]).all()


def test_blurred_padding_weights_colors_by_alpha():
    image = Image.new("RGBA", (16, 32), (0, 255, 0, 0))
    image.paste((200, 40, 10, 255), (0, 8, 16, 24))
    border = np.asarray(fit(image, (32, 64), "pad", "box", "blur"))[:, :10].astype(int)
    visible = border[border[..., 3] > 20]
    assert len(visible) and np.abs(visible[:, :3] - (200, 40, 10)).max() <= 13


def test_fit_stretches_without_crop():
    image = fit(Image.fromarray(RGB), (12, 10), "none", "box")
    expected = RGB.astype(float).reshape(12, 2, 10, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(image) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_box_reduce_is_the_mean_rounded_once(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (channels, 24, 36), dtype=np.uint8)
    mean = pixels.reshape(channels, 8, 3, 6, 6).astype(np.float64).mean((2, 4))
    assert np.array_equal(box_reduce(pixels, (8, 6)), np.floor(mean + 0.5).astype(np.uint8))


def test_box_reduce_does_not_bleed_invisible_colors():
    pixels = np.zeros((4, 2, 2), np.uint8)
    pixels[:, 0, 0] = (200, 100, 50, 255)  # one visible pixel, three invisible black ones
    assert box_reduce(pixels, (1, 1))[:, 0, 0].tolist() == [200, 100, 50, 64]


def test_box_reduce_by_a_fraction():
    pixels = np.full((3, 9, 9), 77, np.uint8)
    assert np.array_equal(box_reduce(pixels, (6, 6)), np.full((3, 6, 6), 77, np.uint8))


def test_array_round_trip():
    for channels in (1, 3, 4):
        pixels = np.random.default_rng(2).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
        assert np.array_equal(to_array(from_array(pixels)), pixels)
    with pytest.raises(ValueError, match="uint8"):
        from_array(np.zeros((3, 4, 4)))


_XMP = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'


@pytest.mark.parametrize("where", ["before", "far before", "after"])
@pytest.mark.parametrize("kind", ["eXIf", "iTXt"])
@pytest.mark.parametrize("is_zip", [False, True])
def test_header_of_a_png_that_is_turned(tmp_path, where, kind, is_zip):
    """EXIF or XMP may stand before or after the pixels, which the header is read without."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = _XMP if kind == "iTXt" else exif.tobytes().removeprefix(b"Exif\0\0")
    extra = chunk(b"prVt", bytes(9000)) * (where == "far before") + chunk(kind.encode(), content)
    image = Image.fromarray(RGB[:20])
    png = png_bytes(image)
    place = png.rfind(b"\0\0\0\0IEND") if where == "after" else 33
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "a.png").write_bytes(png[:place] + extra + png[place:])
    if is_zip:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
            z.write(folder / "a.png", "a.png")
    source = open_source(tmp_path / "a.zip" if is_zip else folder)
    header = source.header("a.png", 10**6)
    decoded = source.image("a.png", 10**6)
    assert (header.height, header.width) == decoded.size[::-1] == image.size
    assert np.array_equal(to_array(decoded), to_array(image.transpose(Image.Transpose.ROTATE_270)))
