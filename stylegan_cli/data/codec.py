"""One image file: read its header and pixels, fit it to a size. Needs Pillow and NumPy, but not PyTorch."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageFilter, PngImagePlugin

from ..config import check_choice
from ..errors import MisuseError
from .colors import channels_of, scale_transparent_color, to_srgb, unknown_range
from .formats import readable_formats

# Profiles of more than Pillow's 1 MB exist. Its limit is meant for text, of which it still keeps 64 MB at most.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

MAX_PIXELS = 89_478_485  # Pillow's own limit: larger images are rejected before they are decoded
CROPS = ("center", "pad", "none")  # see `fit`
FILTERS = {
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
HEAD = 4096  # bytes: nearly always enough for all chunks before a PNG's pixels
TAIL = 65536  # bytes: nearly always enough for all chunks after them

_ORIENTATION = 0x0112
_UPRIGHT = {  # by orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")  # types of PNG chunks
_ORIENTED_TEXT = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # their keywords
_BROKEN = (  # what Pillow's decoders raise on damaged files
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError, ArithmeticError),
    *(TypeError, AttributeError, RuntimeError, MemoryError),
)


class ImageError(Exception):
    """A single file cannot be used; the text says why in a few words."""


@dataclass(frozen=True)
class Header:
    """Size and channels of an image after its EXIF orientation is applied."""

    height: int
    width: int
    channels: int  # 1 gray, 3 color, 4 with alpha

    @property
    def size_text(self) -> str:
        """Height x width, as in --size."""
        return f"{self.height}x{self.width}"


def read_header(
    data: bytes,  # the whole file; for a PNG, its first HEAD bytes are enough
    max_pixels: int = MAX_PIXELS,
) -> Header:
    """Read size and channels without decoding. Raises ImageError if it is not an image or has too many pixels."""
    with _opened(data, max_pixels) as image:
        rotated = _orientation(image, Image.Image.getexif) in (5, 6, 7, 8)  # a PNG's own getexif decodes the pixels
        if rotated and image.format == "TIFF":  # Pillow rotates these itself, in some releases on loading
            image.load()
        width, height = image.size[::-1] if rotated and image.format != "TIFF" else image.size
        return Header(height, width, channels_of(image))


def may_turn_late(
    head: bytes,  # the first bytes of a file
    tail: Callable[[], bytes],  # reads the last TAIL bytes
) -> bool:
    """Whether a PNG may have an orientation after its pixels, which `read_header` does not see."""
    if not head.startswith(_PNG):
        return False
    end = tail()
    return any(key in end for key in (b"eXIf", *_ORIENTED_TEXT))


def decode(
    data: bytes,  # the whole file
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode the first frame, upright, in sRGB, in mode L, RGB or RGBA, without metadata. Raises ImageError.

    colors.py converts profiles and other numbers of bits.
    """
    with _opened(data, max_pixels) as image:
        scale_transparent_color(image)
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        image = to_srgb(image)
        return image if turn is None else image.transpose(turn)


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
    image: Image.Image,  # mode L, RGB or RGBA
    size: tuple[int, int],  # (height, width)
    crop: str,  # 'center': largest centered crop of that aspect ratio; 'pad': the whole image; 'none': stretch
    filter: str,  # of FILTERS
    pad: str = "black",  # around the whole image: a color, or 'blur' for a blurred enlargement of it
) -> Image.Image:
    """Crop and resize to ``size``. An image that is of that size after cropping is not resampled.

    Cropping comes first, as in NVIDIA's dataset_tool: no pixel outside of the crop contributes.
    """
    height, width = size
    w, h = image.size
    if crop == "pad":
        inner = _limited(height, h * width / w), _limited(width, w * height / h)
        if inner != size:
            canvas = _blurred(image, size) if pad == "blur" else Image.new(image.mode, (width, height), pad)
            canvas.paste(fit(image, inner, "none", filter), ((width - inner[1]) // 2, (height - inner[0]) // 2))
            return canvas
    if crop == "center":
        ch, cw = _limited(h, w * height / width), _limited(w, h * width / height)
        if (ch, cw) != (h, w):
            left, top = (w - cw) // 2, (h - ch) // 2
            image = image.crop((left, top, left + cw, top + ch))
    return image if image.size == (width, height) else image.resize((width, height), FILTERS[filter])


def padding(
    crop: str,  # see `fit`
    pad: str | None,  # None: the default
) -> str:
    """The padding. Raises MisuseError if it has no effect, or is neither 'blur' nor a color."""
    check_choice("The crop", crop, CROPS)
    if pad is None:
        return "black"
    if crop != "pad":
        raise MisuseError(f"The padding {pad!r} has no effect with --crop {crop}.", hint="Add --crop pad.")
    try:
        if pad != "blur":
            ImageColor.getrgb(pad)
    except ValueError as e:
        hint = "Use a name such as white, a value such as #ff8000, or blur."
        raise MisuseError(f"{pad!r} is not a color for the padding.", hint=hint) from e
    return pad


def _limited(side: int, ideal: float) -> int:
    return min(side, max(1, round(ideal)))


def _blurred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cover ``size`` with the image, blurred. Colors are weighted by alpha."""
    cover = fit(image, size, "center", "box")
    blur = ImageFilter.GaussianBlur(max(size) / 16)
    return cover.convert("RGBa").filter(blur).convert("RGBA") if cover.mode == "RGBA" else cover.filter(blur)


def check_pixels(
    height: int,
    width: int,
    max_pixels: int,
) -> None:
    """Raise ImageError if an image has more pixels."""
    if height * width > max_pixels:
        raise ImageError(f"its {height}x{width} pixels (height x width) exceed {_limit(max_pixels)}")


def png_bytes(
    image: Image.Image,
    **options,  # options of Pillow's PNG writer
) -> bytes:
    """Encode as a PNG file, with no metadata but the options."""
    out = io.BytesIO()
    if image.info:
        image = image.copy()
        image.info = {}
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
    tail: bytes,  # the last 12 bytes of a PNG file, or more
) -> bool:
    """Whether a PNG file ends with its end chunk. If not, it is truncated or has trailing data."""
    return tail[-12:] == b"\0\0\0\0IEND\xaeB`\x82"


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image without decoding its pixels. Errors within the block are raised as ImageError."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    if data.startswith(_PNG):
        data = _without_text(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, whose pixels are counted below, and of damaged metadata
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                check_pixels(image.height, image.width, max_pixels)
                if reason := unknown_range(image):
                    raise ImageError(reason)
                yield image
    except Image.DecompressionBombError as e:
        raise ImageError(f"its pixels exceed {_limit(max_pixels)}") from e
    except _BROKEN as e:
        raise ImageError(_reason(e)) from e


def _without_text(
    png: bytes,  # the file or its beginning
) -> bytes:
    """Drop text chunks, which may be larger than Pillow reads, except those that may contain an orientation."""
    kept, start, chunk = [], 0, len(_PNG)
    while chunk + 8 <= len(png):
        end = chunk + 12 + int.from_bytes(png[chunk : chunk + 4], "big")
        if png[chunk + 4 : chunk + 8] in _TEXT and not png.startswith(_ORIENTED_TEXT, chunk + 8):
            kept.append(png[start:chunk])
            start = end
        chunk = end
    return b"".join([*kept, png[start:]]) if kept else png


def _orientation(image: Image.Image, exif: Callable[[Any], Image.Exif] = lambda image: image.getexif()) -> int:
    """Orientation from EXIF or XMP, 1 to 8. Damaged metadata does not matter."""
    try:
        return exif(image).get(_ORIENTATION, 1)
    except _BROKEN:
        return 1


def _limit(max_pixels: int) -> str:
    limit = f"{max_pixels / 1e6:.3g} million" if max_pixels >= 1e5 else f"{max_pixels}"
    return f"the limit of {limit}; `sgan data pack --max-pixels` raises it"


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a readable image"
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__
