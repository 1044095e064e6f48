"""One image file: its header, its pixels, its fitting to a size. Pillow and numpy only, no torch."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 89_478_485  # Pillow's own limit: an image of more is refused before it is decoded
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF")  # decoders that Pillow may use
FILTERS = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
HEAD = 4096  # bytes that hold all the chunks before a PNG's pixels, nearly always

_ORIENTATION = 0x0112
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, MemoryError)


class ImageError(Exception):
    """This one file cannot be used; the text says why in a few words."""


@dataclass(frozen=True)
class Header:
    """What a file's first bytes say about the image, as it stands upright."""

    height: int
    width: int
    channels: int  # 1 gray, 3 color, 4 with alpha


def read_header(
    data: bytes,  # the whole file, or of a PNG at least its first HEAD bytes
    max_pixels: int = MAX_PIXELS,
) -> Header:
    """Size and channels without decoding. Raises ImageError if it is no image, or one of too many pixels."""
    with _opened(data, max_pixels) as image:
        # Of a PNG without orientation Pillow would decode the pixels, to look for one behind them.
        has_exif = image.format != "PNG" or "exif" in image.info
        turned = has_exif and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        if turned and image.format == "TIFF":  # which Pillow turns by itself, some releases on loading
            image.load()
        width, height = image.size[::-1] if turned and image.format != "TIFF" else image.size
        return Header(height, width, _channels(image))


def decode(
    data: bytes,  # the whole file
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """The first frame, upright, in mode L, RGB or RGBA with 8 bits a channel. Raises ImageError."""
    with _opened(data, max_pixels) as image:
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return _eight_bits(ImageOps.exif_transpose(image) if turned else image)


def to_channels(
    image: Image.Image,  # mode L, RGB or RGBA
    channels: int,  # 1, 3 or 4
) -> Image.Image:
    """Gray, RGB or RGBA. Where alpha is dropped, the image is laid on white."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == "RGBA" and channels != 4:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def to_array(
    image: Image.Image,  # mode L, RGB or RGBA
) -> np.ndarray:
    """uint8 [C, H, W]."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def from_array(
    pixels: np.ndarray,  # uint8 [C, H, W], C = 1, 3 or 4
) -> Image.Image:
    """The image in mode L, RGB or RGBA. Raises ValueError for another type or shape."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        raise ValueError(f"expected uint8 [C, H, W] of 1, 3 or 4 channels, got {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def fit(
    image: Image.Image,
    size: tuple[int, int],  # (height, width)
    crop: str,  # 'center': the largest centered part of that shape; 'none': stretch
    filter: str,  # 'box' or 'lanczos'
) -> Image.Image:
    """Cropped and resized to ``size``; an image that has the size already is not resampled."""
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
    **options,  # of Pillow's PNG writer
) -> bytes:
    """The image as a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def box_reduce(
    pixels: np.ndarray,  # uint8 [C, H, W]
    size: tuple[int, int],  # (height, width), not above H and W
) -> np.ndarray:
    """Area average, uint8 [C, h, w]; exact up to one rounding where H/h and W/w are whole numbers.

    Colors of an image with alpha are weighted with it, so that what is invisible does not bleed in.
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
    """Whether a PNG file ends with its end mark; where it does not, it was cut short or something follows it."""
    return tail[-12:] == b"\0\0\0\0IEND\xaeB`\x82"


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The image, whose pixels are not decoded yet. What goes wrong with it is raised as ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}"
                raise ImageError(f"{size} pixels is more than the {max_pixels / 1e6:.3g} million allowed")
            yield image
    except Image.DecompressionBombError as e:
        raise ImageError(str(e).split(",")[0]) from e
    except _BROKEN as e:
        raise ImageError(_reason(e)) from e


def _channels(image: Image.Image) -> int:
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        return 4
    return 1 if image.mode == "1" or image.mode[0] in "LIF" and image.mode != "LAB" else 3


def _eight_bits(image: Image.Image) -> Image.Image:
    """Mode L, RGB or RGBA, whatever came."""
    if image.mode == "F":
        raise ImageError("pixels are floating point numbers, which have no agreed range")
    if image.mode.startswith("I"):  # 16 bits gray, which Pillow would clip at 255
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[_channels(image)])


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be read"
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__
