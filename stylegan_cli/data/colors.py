"""Pixels as a viewer shows them: from any mode of Pillow, with an ICC profile, a PNG's gamma or neither, to sRGB with
8 bits.

Needs Pillow with LittleCMS, which its wheels contain, and NumPy.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_SIGNED, _FLOAT = 2, 3  # values of the sample format
_WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa")
_GRAY = ("1", "L", "LA", "I", "F")
# Modes that a color space of profiles applies to. Viewers ignore other profiles, such as those of CMYK in an RGB file.
_SPACES = {"GRAY": ("L",), "RGB": ("L", "RGB"), "CMYK": ("CMYK",)}

# A PNG's gamma and primaries. Tolerance and limits of gamma are those of libpng.
_GAMMA_TOLERANCE, _PRIMARIES_TOLERANCE = 0.05, 0.002
_LEAST_GAMMA = 0.00016
_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def channels_of(
    image: Image.Image,  # any mode; need not be loaded
) -> int:
    """Return 1 for gray, 3 for color, 4 with alpha, a transparent color or transparent palette entries."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return 4
    return 1 if image.mode.split(";")[0] in _GRAY else 3


def unknown_range(
    image: Image.Image,  # any mode; need not be loaded
) -> str | None:
    """Return why values of the image cannot be scaled to 8 bits; None if they can."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    formats = tags.get(_SAMPLE_FORMAT, ())
    if image.mode == "F" or _FLOAT in formats:
        return "its pixels are floating point numbers, whose range is unknown; convert it to 8 or 16 bits"
    if _SIGNED in formats:
        return "its pixels are signed integers, whose range is unknown; convert it to unsigned 8 or 16 bits"
    if image.mode == "I" and image.format == "TIFF":
        return "its pixels are 32-bit integers, whose range is unknown; convert it to 8 or 16 bits"
    return None


def scale_transparent_color(
    image: Image.Image,  # not yet loaded; changed in place
) -> None:
    """Convert the transparent color of a PNG, which Pillow keeps in the bits of the file, to 8 bits."""
    color = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or color is None:
        return
    tiles = getattr(image, "tile", ())
    raw_mode = str(tiles[0][3]) if tiles else ""  # such as L;2 or RGB;16B
    bits = int("".join(c for c in raw_mode.partition(";")[2] if c.isdigit()) or 8)
    scaled = [k >> 8 if bits == 16 else k * 255 // ((1 << bits) - 1) for k in np.atleast_1d(color).tolist()]
    image.info["transparency"] = tuple(scaled) if image.mode == "RGB" else scaled[0]


def to_srgb(
    image: Image.Image,  # any mode, loaded, with a known range
) -> Image.Image:
    """Convert to mode L, RGB or RGBA in sRGB, without metadata. Alpha is not changed.

    Unsigned integers of b bits become round(x / (2^b - 1) * 255); Pillow drops the lower 8 of 16 bits in color.
    A profile that cannot be read, or is not for this kind of pixels, is ignored, as in viewers; so are the gamma and
    the primaries of a PNG with a profile or an sRGB chunk.
    """
    profile = image.info.get("icc_profile") if image.mode != "LAB" else None
    described = image.format == "PNG" and not profile and "srgb" not in image.info
    gamma, primaries = (image.info.get(name) if described else None for name in ("gamma", "chromaticity"))
    channels, is_gray = channels_of(image), image.mode.split(";")[0] in _GRAY
    alpha = None
    if image.mode.startswith("I"):
        image, alpha = _from_integers(image)
    elif channels == 4:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if is_gray and alpha and image.mode != "L":
        image = image.getchannel("R")
    elif image.mode != "CMYK":
        image = _converted(image, "L" if is_gray else "RGB")
    transform = _transform(profile, image.mode) if profile else None
    if transform:
        if transform.input_mode == "RGB":
            image = _converted(image, "RGB")  # gray, with a profile for color
        image = transform.apply(image)
    if gamma and image.mode in ("L", "RGB"):
        image = _from_gamma(image, gamma, primaries)
    image = _converted(image, "L" if channels == 1 else "RGB")
    if alpha:
        image.putalpha(alpha)
    image.info = {}
    return image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _from_integers(
    image: Image.Image,  # mode I or I;16, gray
) -> tuple[Image.Image, Image.Image | None]:  # modes L and L: gray and alpha
    """Scale gray of up to 16 bits. Alpha is None unless one value is transparent."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    largest = (1 << tags.get(_BITS, (16,))[0]) - 1
    values = np.asarray(image).astype(np.int64).clip(0, largest)
    key = image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0; Pillow inverts this for 8 bits only
        values = largest - values
    return Image.fromarray(((values * 255 + largest // 2) // largest).astype(np.uint8)), alpha


@functools.lru_cache(maxsize=16)
def _transform(
    profile: bytes,
    mode: str,  # L, RGB or CMYK
) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile to sRGB; None if the profile cannot be used or changes nothing.

    Changing nothing is to change no color by more than 1/255: sRGB files of all programs keep their exact pixels.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = getattr(source.profile, "xcolor_space", "").strip()
        if mode not in _SPACES.get(space, ()):
            return None
        mode = "RGB" if space == "RGB" else mode
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "CMYK":
        return transform
    probe = _probe().convert(mode)
    change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return transform if np.abs(change).max() > 1 else None


@functools.cache
def _probe() -> Image.Image:
    """All combinations of 52 levels: RGB [52, 2704]."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return Image.fromarray(colors.reshape(len(levels), -1, 3))


def _from_gamma(
    image: Image.Image,  # mode L or RGB
    gamma: float,  # of the gAMA chunk: values are linear light to this power
    primaries: tuple[float, ...] | None,  # of the cHRM chunk: x and y of white, red, green and blue
) -> Image.Image:
    """Convert to sRGB as browsers do: with the curve and the primaries of sRGB where the file's hardly differ."""
    matrix = _matrix_to_srgb(primaries) if primaries and image.mode == "RGB" else None
    is_srgb = abs(gamma * 2.2 - 1) <= _GAMMA_TOLERANCE
    if not _LEAST_GAMMA <= gamma <= 1 / _LEAST_GAMMA or is_srgb and matrix is None:
        return image
    levels = np.arange(256) / 255
    srgb_light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = srgb_light if is_srgb else levels ** (1 / gamma)
    if matrix is None:
        return image.point(_encoded(light).tolist() * len(image.getbands()))
    pixels = np.array(image)
    for row in pixels:  # a row at a time, as floating-point numbers need eight times the memory
        row[:] = _encoded(light[row] @ matrix.T)
    return Image.fromarray(pixels)


def _encoded(
    light: np.ndarray,  # linear light of sRGB, 0 to 1 where it can be shown
) -> np.ndarray:  # uint8
    """Encode with the curve of sRGB (IEC 61966-2-1)."""
    light = light.clip(0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (values * 255).round().astype(np.uint8)


def _matrix_to_srgb(
    primaries: tuple[float, ...],  # x and y of white, red, green and blue
) -> np.ndarray | None:  # [3, 3] from linear RGB to linear sRGB; None if they are those of sRGB, or no colors
    """Compute the matrix between two sets of primaries; white stays white (Bradford's adaptation)."""
    if np.abs(np.subtract(primaries, _SRGB_PRIMARIES)).max() <= _PRIMARIES_TOLERANCE:
        return None
    try:
        (source, white), (target, srgb_white) = _rgb_to_xyz(primaries), _rgb_to_xyz(_SRGB_PRIMARIES)
        scale = np.diag((_BRADFORD @ srgb_white) / (_BRADFORD @ white))
        matrix = np.linalg.inv(target) @ np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ source
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _rgb_to_xyz(primaries: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix from linear RGB to XYZ, and the XYZ of white, where Y is 1."""
    white, *colors = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.reshape(primaries, (4, 2)).tolist())
    matrix = np.stack(colors, 1)
    return matrix * np.linalg.solve(matrix, white), white
