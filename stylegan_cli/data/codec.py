"""One image file: read its header and pixels, fit it to a size. Needs Pillow and NumPy, but not PyTorch."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from .formats import readable_formats

MAX_PIXELS = 89_478_485  # Pillow's own limit: larger images are rejected before they are decoded
FILTERS = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
HEAD = 4096  # bytes: nearly always enough for all chunks before a PNG's pixels

_ORIENTATION = 0x0112
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, MemoryError)


class ImageError(Exception):
    """A single file cannot be used; the text says why in a few words."""


@dataclass(frozen=True)
class Header:
    """Size and channels of an image after its EXIF orientation is applied."""

    height: int
    width: int
    channels: int  # 1 gray, 3 color, 4 with alpha


def read_header(
    data: bytes,  # the whole file; for a PNG, its first HEAD bytes are enough
    max_pixels: int = MAX_PIXELS,
) -> Header:
    """Read size and channels without decoding. Raises ImageError if it is not an image or has too many pixels."""
    with _opened(data, max_pixels) as image:
        # For a PNG without EXIF before its pixels, getexif would decode the pixels to look for EXIF after them.
        has_exif = image.format != "PNG" or "exif" in image.info
        rotated = has_exif and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        if rotated and image.format == "TIFF":  # Pillow rotates these itself, in some releases on loading
            image.load()
        width, height = image.size[::-1] if rotated and image.format != "TIFF" else image.size
        return Header(height, width, _channels(image))


def decode(
    data: bytes,  # the whole file
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode the first frame, upright, in mode L, RGB or RGBA with 8 bits per channel. Raises ImageError."""
    with _opened(data, max_pixels) as image:
        image.load()
        transformed = image.getexif().get(_ORIENTATION, 1) != 1
        return _to_8_bits(ImageOps.exif_transpose(image) if transformed else image)


def to_channels(
    image: Image.Image,  # mode L, RGB or RGBA
    channels: int,  # 1, 3 or 4
) -> Image.Image:
    """Convert to gray, RGB or RGBA. Dropping alpha composites the image onto white."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == "RGBA" and channels != 4:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def to_array(
    image: Image.Image,  # mode L, RGB or RGBA
) -> np.ndarray:
    """Convert to uint8 [C, H, W]."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def from_array(
    pixels: np.ndarray,  # uint8 [C, H, W], C = 1, 3 or 4
) -> Image.Image:
    """Convert to an image in mode L, RGB or RGBA. Raises ValueError for other types and shapes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        raise ValueError(f"expected uint8 [C, H, W] with 1, 3 or 4 channels, got {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def fit(
    image: Image.Image,
    size: tuple[int, int],  # (height, width)
    crop: str,  # 'center': largest centered crop of that aspect ratio; 'none': stretch
    filter: str,  # 'box' or 'lanczos'
) -> Image.Image:
    """Crop and resize to ``size``. An image that is of that size after cropping is not resampled."""
    height, width = size
    w, h = image.size
    cw, ch = w, h
    if crop == "center":
        cw, ch = min(w, max(1, round(h * width / height))), min(h, max(1, round(w * height / width)))
    left, top = (w - cw) // 2, (h - ch) // 2
    if (cw, ch) == (width, height):
        return image.crop((left, top, left + cw, top + ch))
    return image.resize((width, height), FILTERS[filter], box=(left, top, left + cw, top + ch))


def png_bytes(
    image: Image.Image,
    **options,  # options of Pillow's PNG writer
) -> bytes:
    """Encode as a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def box_reduce(
    pixels: np.ndarray,  # uint8 [C, H, W]
    size: tuple[int, int],  # (height, width), at most (H, W)
) -> np.ndarray:
    """Reduce by area average to uint8 [C, h, w]. Exact up to one rounding if H/h and W/w are whole numbers.

    Colors are weighted by alpha, so that invisible colors do not bleed in.
    """
    c, h, w = pixels.shape
    if h % size[0] or w % size[1]:
        return to_array(from_array(pixels).resize((size[1], size[0]), Image.Resampling.BOX))
    fh, fw = h // size[0], w // size[1]
    blocks = pixels.reshape(c, size[0], fh, size[1], fw).astype(np.int64)
    if c < 4:
        return ((blocks.sum((2, 4)) + fh * fw // 2) // (fh * fw)).astype(np.uint8)
    alpha = blocks[3:].sum((2, 4))
    color = (blocks[:3] * blocks[3:]).sum((2, 4))
    color = (color + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([color, (alpha + fh * fw // 2) // (fh * fw)]).astype(np.uint8)


def ends_well(
    tail: bytes,  # the last 12 bytes of a PNG file
) -> bool:
    """Whether a PNG file ends with its end chunk. If not, it is truncated or has trailing data."""
    return tail[-12:] == b"\0\0\0\0IEND\xaeB`\x82"


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image without decoding its pixels. Errors within the block are raised as ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is checked below
            image = Image.open(io.BytesIO(data), formats=readable_formats())
        with image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}"
                raise ImageError(f"{size} pixels exceed the limit of {max_pixels / 1e6:.3g} million")
            yield image
    except Image.DecompressionBombError as e:
        raise ImageError(str(e).split(",")[0]) from e
    except _BROKEN as e:
        raise ImageError(_reason(e)) from e


def _channels(image: Image.Image) -> int:
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        return 4
    return 1 if image.mode == "1" or image.mode[0] in "LIF" and image.mode != "LAB" else 3


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert any mode to L, RGB or RGBA."""
    if image.mode == "F":
        raise ImageError("its pixels are floating point numbers, whose range is unknown")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip at 255
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[_channels(image)])


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a readable image"
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__
