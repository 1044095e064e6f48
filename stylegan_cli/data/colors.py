"""Pixels as a viewer shows them: from any mode of Pillow, with or without an ICC profile, to sRGB with 8 bits.

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
    A profile that cannot be read, or is not for this kind of pixels, is ignored, as in viewers.
    """
    profile = image.info.get("icc_profile") if image.mode != "LAB" else None
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
