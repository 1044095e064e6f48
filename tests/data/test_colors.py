"""Colors are what a viewer shows: profiles, ranges and transparent colors of every mode."""

import io
import struct
import zipfile
import zlib

import _image_files
import numpy as np
import pytest
from _image_files import chunk, encoded, png16, png_gray, tiff_12_bit, tiff_gray, with_chunks
from PIL import Image, ImageCms, PngImagePlugin

from stylegan_cli.data.codec import ImageError, decode, read_header
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.pack import pack

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
P3, GRAY, CMYK = _image_files.rgb_profile(), _image_files.gray_profile(), _image_files.cmyk_profile()


def by_littlecms(image, profile):
    """The conversion in its plainest form."""
    return np.asarray(ImageCms.profileToProfile(image, io.BytesIO(profile), SRGB, outputMode="RGB")).astype(int)


def by_definition(pixels, matrix, gamma):
    """IEC 61966-2-1 of the colors of a matrix profile, in float64: [H, W, 3] uint8 to [H, W, 3], not rounded."""
    xyz = (pixels / 255.0) ** gamma @ np.array(matrix)
    linear = np.clip(xyz @ np.linalg.inv(np.array(_image_files.SRGB)), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def distance(image, expected):
    return np.abs(np.asarray(image).astype(float) - expected).max()


@pytest.mark.parametrize("matrix", [_image_files.DISPLAY_P3, _image_files.ADOBE_RGB], ids=["P3", "Adobe RGB"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_profile_of_color(matrix, format):
    profile = _image_files.rgb_profile(matrix)
    image = decode(encoded(Image.fromarray(RGB), format, icc_profile=profile, lossless=True))
    assert distance(image, by_littlecms(Image.fromarray(RGB), profile)) == 0
    assert distance(image, by_definition(RGB, matrix, 563 / 256)) < 2  # LittleCMS computes with 8 bits
    assert np.abs(np.asarray(image).astype(int) - RGB).mean() > 5
    assert image.mode == "RGB" and not image.info


SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_PRIMARIES = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
WIDE_PRIMARIES = (0.34567, 0.35850, 0.7350, 0.2650, 0.1150, 0.8260, 0.1570, 0.0180)  # its white is D50


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.35, 1 / 2.6])
@pytest.mark.parametrize(
    ("primaries", "matrix"),
    [
        (None, _image_files.SRGB),
        (SRGB_PRIMARIES, _image_files.SRGB),
        (P3_PRIMARIES, _image_files.DISPLAY_P3),
        (WIDE_PRIMARIES, _image_files.WIDE_GAMUT),
    ],
    ids=["no primaries", "sRGB", "P3", "wide gamut"],
)
def test_gamma_and_primaries_of_a_png(gamma, primaries, matrix):
    pixels = RGB.copy()
    pixels[0, :2] = [[0], [255]]
    image = decode(with_chunks(encoded(Image.fromarray(pixels), "PNG"), gamma, primaries))
    assert distance(image, by_definition(pixels, matrix, 1 / gamma)) < 1  # the matrices have five digits
    assert np.abs(np.asarray(image).astype(int) - pixels).mean() > 5
    assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == ((0, 0, 0), (255, 255, 255))
    assert image.mode == "RGB" and not image.info


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_gamma_of_other_modes(mode):
    """Alpha is not changed, and gray has no primaries."""
    source = Image.fromarray(RGB).convert({"P": "RGB", "LA": "L"}.get(mode, mode))
    source = source.quantize(16) if mode == "P" else source.convert(mode)
    if mode in ("LA", "RGBA"):
        source.putalpha(Image.fromarray(RGB[..., 1]))
    image = decode(with_chunks(encoded(source, "PNG"), 1.0, None if mode in ("P", "RGBA") else P3_PRIMARIES))
    plain = source.convert("RGBA")
    expected = by_definition(np.asarray(plain)[..., :3], _image_files.SRGB, 1.0)
    assert distance(image.convert("RGBA").convert("RGB"), expected) < 0.6
    assert np.array_equal(np.asarray(image.convert("RGBA"))[..., 3], np.asarray(plain)[..., 3])
    assert image.mode == {"LA": "RGBA", "RGBA": "RGBA", "P": "RGB"}.get(mode, "L")


def test_gamma_of_16_bits():
    levels = np.arange(256)[None, :, None]
    image = decode(with_chunks(png16((levels * 257).astype(np.uint16)), 1.0))
    assert distance(image, by_definition(levels.repeat(3, 2), _image_files.SRGB, 1.0)[..., 0]) < 0.6


@pytest.mark.parametrize(
    ("chunks", "profile"),
    [
        ({"gamma": 1 / 2.2}, None),
        ({"gamma": 0.45455 * 1.04}, None),
        ({"gamma": 0.45455 / 1.04, "primaries": SRGB_PRIMARIES}, None),
        ({"gamma": 1.0, "primaries": P3_PRIMARIES, "intent": 0}, None),  # an sRGB chunk wins
        ({"gamma": 1.0, "primaries": P3_PRIMARIES}, SRGB.tobytes()),  # a profile wins
        ({"primaries": P3_PRIMARIES}, None),
        ({"gamma": 0.0}, None),
        ({"gamma": 0.0001}, None),
        ({"gamma": 20000}, None),
        ({"gamma": 1 / 2.2, "primaries": (0.3, 0.3) * 4}, None),
        ({"gamma": 1 / 2.2, "primaries": (0.0,) * 8}, None),
    ],
)
def test_chunks_that_change_nothing(chunks, profile):
    png = encoded(Image.fromarray(RGB), "PNG", **({"icc_profile": profile} if profile else {}))
    assert np.array_equal(np.asarray(decode(with_chunks(png, **chunks))), RGB)


def test_gamma_next_to_a_profile():
    """The profile alone counts."""
    png = encoded(Image.fromarray(RGB), "PNG", icc_profile=P3)
    assert np.array_equal(np.asarray(decode(with_chunks(png, 1.0))), np.asarray(decode(png)))


def test_primaries_with_the_curve_of_srgb():
    pixels = np.asarray(decode(with_chunks(encoded(Image.fromarray(RGB), "PNG"), 1 / 2.2, P3_PRIMARIES)))
    light = np.where(RGB / 255 <= 0.04045, RGB / 255 / 12.92, ((RGB / 255 + 0.055) / 1.055) ** 2.4)
    assert distance(pixels, by_definition(255 * light, _image_files.DISPLAY_P3, 1.0)) < 1


def test_same_colors_in_two_spaces_are_the_same_pixels():
    shown = np.random.default_rng(1).integers(40, 216, (16, 16, 3)).astype(np.uint8)  # colors that both have
    linear = np.where(shown / 255 <= 0.04045, shown / 255 / 12.92, ((shown / 255 + 0.055) / 1.055) ** 2.4)
    p3 = linear @ np.array(_image_files.SRGB) @ np.linalg.inv(np.array(_image_files.DISPLAY_P3))
    stored = np.round(255 * np.clip(p3, 0, 1) ** (256 / 563)).astype(np.uint8)
    assert np.abs(stored.astype(int) - shown).max() > 5
    assert distance(decode(encoded(Image.fromarray(stored), "PNG", icc_profile=P3)), shown) <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(
    "profile", [P3, GRAY, CMYK, SRGB.tobytes(), b"no profile"], ids=["P3", "gray", "CMYK", "sRGB", "none"]
)
def test_every_mode_with_every_profile(mode, profile):
    image = Image.fromarray(RGB).convert({"LA": "L", "PA": "P"}.get(mode, mode))
    alpha = Image.fromarray(RGB[..., 1])
    if mode == "P":
        image = image.convert("RGB").quantize(16)
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(alpha)
    options = {"transparency": 3} if mode == "PA" else {}
    result = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG", icc_profile=profile, **options))
    plain = image.convert("RGBA").convert("RGB")
    is_gray = mode in ("1", "L", "LA")
    if profile == P3 and mode != "CMYK":
        expected = by_littlecms(plain, P3)
    elif profile == GRAY and is_gray:
        expected = by_littlecms(plain.convert("L"), GRAY)
    elif profile == CMYK and mode == "CMYK":
        expected = by_littlecms(image, CMYK)
    else:
        expected = np.asarray(plain).astype(int)
        assert distance(result.convert("RGB"), expected) == 0  # also with the profile of sRGB: nothing changes
    assert distance(result.convert("RGB"), expected) <= 1
    assert result.mode == ("RGBA" if mode in ("LA", "PA", "RGBA") else "L" if is_gray else "RGB") and not result.info
    if mode in ("LA", "RGBA"):
        assert np.array_equal(np.asarray(result)[..., 3], np.asarray(alpha))
    assert profile != GRAY or not is_gray or mode == "1" or np.abs(expected - np.asarray(plain)).max() > 50


def test_profile_of_a_jpeg_with_four_inks():
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", icc_profile=CMYK)
    with Image.open(io.BytesIO(data)) as opened:
        assert distance(decode(data), by_littlecms(opened, CMYK)) == 0


def test_profile_and_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encoded(Image.fromarray(RGB), "PNG", icc_profile=P3, exif=exif))
    assert distance(image, np.rot90(by_littlecms(Image.fromarray(RGB), P3), -1)) == 0


def test_lab_is_converted():
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB), SRGB, ImageCms.createProfile("LAB"), outputMode="LAB", renderingIntent=1
    )
    data = encoded(lab, "TIFF")
    assert read_header(data).channels == 3
    result = decode(data)
    assert result.mode == "RGB" and np.abs(np.asarray(result).astype(int) - RGB).mean() < 3


def test_16_bit_gray_with_a_profile():
    """Scaled to 8 bits first, then converted."""
    values = (np.arange(24 * 40).reshape(24, 40) * 68).astype(np.uint16)
    profile = _image_files.gray_profile(1.8)
    image = decode(encoded(Image.fromarray(values), "PNG", icc_profile=profile))
    scaled = Image.fromarray(np.round(values / 257).astype(np.uint8))
    assert image.mode == "L" and distance(image.convert("RGB"), by_littlecms(scaled, profile)) == 0
    linear = (values / 65535) ** 1.8
    curve = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert distance(image, curve) < 3


# ----------------------------------------------------------------------------------------- metadata


def with_chunk(png, name, data, before=b"IDAT"):
    at = png.index(before) - 4
    return png[:at] + chunk(name, data) + png[at:]


def test_large_metadata_does_not_matter(tmp_path):
    """The profile is 1.7 MB, and so is Pillow's limit on text exceeded."""
    profile = _image_files.rgb_profile(padding=1_700_000)
    plain = encoded(Image.fromarray(RGB), "PNG")
    text = with_chunk(plain, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000)))
    (tmp_path / "src").mkdir()
    files = {
        "a.png": encoded(Image.fromarray(RGB), "PNG", icc_profile=profile),
        "b.jpg": encoded(Image.fromarray(RGB), "JPEG", icc_profile=profile, quality=100, subsampling=0),
        "c.png": text,
        "d.png": with_chunk(plain, b"tEXt", b"Comment\0" + b"x" * 2_000_000, b"IEND"),
        "e.webp": encoded(Image.fromarray(RGB), "WEBP", icc_profile=profile, lossless=True),
    }
    for name, data in files.items():
        (tmp_path / "src" / name).write_bytes(data)
    report = pack(tmp_path / "src", tmp_path / "o.zip", strict=True)
    assert report.num == 5
    images = open_dataset(tmp_path / "o.zip").images(range(5)).numpy().transpose(0, 2, 3, 1)
    converted = by_littlecms(Image.fromarray(RGB), profile)
    assert [distance(images[i], e) for i, e in enumerate((converted, None, RGB, RGB, converted)) if i != 1] == [0] * 4
    assert np.abs(images[1].astype(int) - converted).mean() < 6


def test_only_pixels_are_written(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    exif = Image.Exif()
    exif[0x010E] = "a description"
    (tmp_path / "src").mkdir()
    for name, options in {"a.png": {"pnginfo": text, "dpi": (300, 300)}, "b.jpg": {"comment": "hello"}}.items():
        Image.fromarray(RGB).save(tmp_path / "src" / name, icc_profile=P3, exif=exif, **options)
    Image.fromarray(RGB[..., 0]).save(tmp_path / "src" / "c.png", transparency=7)
    pack(tmp_path / "src", tmp_path / "o.zip")
    with zipfile.ZipFile(tmp_path / "o.zip") as z:
        for name in z.namelist()[:3]:
            data, at, types = z.read(name), 8, []
            while at < len(data):
                types.append(data[at + 4 : at + 8])
                at += 12 + int.from_bytes(data[at : at + 4], "big")
            assert set(types) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_does_not_matter():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        image = decode(encoded(Image.fromarray(RGB), "WEBP", lossless=True, exif=exif))
        assert np.array_equal(np.asarray(image), RGB)
    zeros = rb"\x00" * 8
    broken = with_chunk(encoded(Image.fromarray(RGB), "PNG"), b"iCCP", b"name\0\0" + zeros)
    assert np.array_equal(np.asarray(decode(broken)), RGB)


# ------------------------------------------------------------------------------------------- ranges


def test_12_bit_gray_uses_its_own_range():
    data = tiff_12_bit(np.array([[0, 4095], [2048, 1024]]))
    assert np.asarray(decode(data)).tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_white_may_be_zero(dtype):
    largest = np.iinfo(dtype).max
    values = np.array([[0, largest // 5], [largest // 5 * 2, largest]], dtype)
    data = tiff_gray(values, 8 * values.dtype.itemsize, photometric=0)
    assert np.asarray(decode(data)).tolist() == [[255, 204], [153, 0]]


@pytest.mark.parametrize(
    ("dtype", "sample_format", "reason"),
    [
        ("<u4", 1, "32-bit integers"),
        ("<i4", 2, "signed integers"),
        ("<i2", 2, "signed integers"),
        ("i1", 2, "signed integers"),
        ("<f4", 3, "floating point"),
    ],
)
def test_unknown_ranges_are_refused_by_the_header(dtype, sample_format, reason):
    values = np.arange(16, dtype=dtype).reshape(4, 4)
    data = tiff_gray(values, 8 * values.dtype.itemsize, sample_format=sample_format)
    for read in (read_header, decode):
        with pytest.raises(ImageError, match=f"{reason}.*, whose range is unknown; convert it"):
            read(data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_transparent_gray(bits):
    rows = np.arange(16).reshape(2, 8) * 4369 >> 16 - bits
    key = int(rows[0, 5])
    data = png_gray(rows, bits, key)
    assert read_header(data).channels == 4
    pixels = np.asarray(decode(data))
    assert np.array_equal(pixels[..., 0], np.round(rows * 255 / ((1 << bits) - 1)))
    assert np.array_equal(pixels[..., 3], np.where(rows == key, 0, 255))


def test_transparent_color_of_16_bits():
    values = RGB.astype(np.uint16) * 257
    values[3, 5] = (65535, 300, 0)
    data = with_chunk(png16(values), b"tRNS", struct.pack(">3H", 65535, 300, 0))
    alpha = np.asarray(decode(data))[..., 3]
    assert alpha[3, 5] == 0 and (alpha == 0).sum() == 1
