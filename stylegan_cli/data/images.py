"""Write images with their metadata, and arrange many of them in one grid or sheet."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from ..errors import SganError, printable
from ..files import write_atomic
from .codec import from_array, to_channels

_FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
_DESCRIPTION = 0x010E  # EXIF ImageDescription: holds the metadata in JPEG and WebP, as text chunks do in PNG
_MARGIN = 245  # gray level of a sheet's margins
# Fonts with many scripts that systems install: Linux, macOS, Windows.
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")
_INK_RGB = (40, 40, 40)  # color of a sheet's labels


def save_image(
    image: Tensor | np.ndarray,  # uint8 [C, H, W], C = 1, 3 or 4
    path: str | os.PathLike,
    *,
    metadata: dict[str, str] | None = None,  # saved as text chunks (PNG) or as EXIF description (JPEG, WebP)
    format: str | None = None,  # 'png', 'jpg' or 'webp'; None: from the file name
) -> None:
    """Write one image atomically. JPEG has no alpha: RGBA is composited onto white.

    Raises SganError if the format is unknown or the file cannot be written.
    """
    write_atomic(path, encode_image(image, format or Path(path).suffix.lstrip("."), metadata))


def encode_image(
    image: Tensor | np.ndarray,  # uint8 [C, H, W], C = 1, 3 or 4
    format: str,  # 'png', 'jpg' or 'webp'
    metadata: dict[str, str] | None = None,
) -> bytes:
    """The content of the file that `save_image` writes. Raises SganError if the format is unknown."""
    if format.lower() not in _FORMATS:
        raise SganError(f"{format!r} is not a supported image format.", hint="Choose png, jpg or webp.")
    pillow_image, kind = _to_pillow(image), _FORMATS[format.lower()]
    options: dict = {}
    if kind == "PNG":
        options["pnginfo"] = info = PngInfo()
        for key, value in (metadata or {}).items():
            info.add_text(key, value.encode(errors="backslashreplace").decode())  # names of files may be undecodable
    else:
        options["quality"] = 95
        if metadata:
            options["exif"] = exif_with_description(json.dumps(metadata))
    if kind == "JPEG" and pillow_image.mode == "RGBA":
        pillow_image = to_channels(pillow_image, 3)
    content = io.BytesIO()
    pillow_image.save(content, kind, **options)
    return content.getvalue()


def exif_with_description(
    description: str,
) -> Image.Exif:
    """Create EXIF data with a description and nothing else."""
    exif = Image.Exif()
    exif[_DESCRIPTION] = description
    return exif


def read_metadata(
    path: str | os.PathLike,
) -> dict[str, str]:
    """Read the metadata that `save_image` or `write_video` saved. Files of other programs give their PNG text, if any.

    Raises SganError if the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            if isinstance(image, PngImageFile):
                image.load()  # text chunks may follow the pixels
                return {k: str(v) for k, v in image.text.items()}
            text = image.info.get("comment") if image.format == "GIF" else image.getexif().get(_DESCRIPTION)
            content = json.loads(text or "{}")
    except (ValueError, RecursionError):  # another program's description
        return {}
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise SganError(f"{path} is not a readable image.") from e
    return {k: v for k, v in content.items() if isinstance(v, str)} if isinstance(content, dict) else {}


def to_uint8(
    images: Tensor,  # float [N, C, H, W], -1 black to 1 white
) -> Tensor:
    """Convert to uint8 [N, C, H, W]: x * 127.5 + 128, clamped to 0..255 and rounded down."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_rgb(
    images: Tensor,  # [N, 1, 3 or 4, H, W], uint8, or float from -1 black to 1 white
    background: int = 255,  # gray level behind transparent pixels, 0 to 255
) -> Tensor:  # [N, 3, H, W], same dtype
    """Convert to RGB: repeat gray, composite alpha onto the background."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3:
        return images
    color, alpha = images[:, :3], images[:, 3:]
    if images.is_floating_point():
        alpha = (alpha + 1) / 2
        return color * alpha + (background / 127.5 - 1) * (1 - alpha)
    alpha = alpha.int()
    return ((color * alpha + background * (255 - alpha) + 127) // 255).to(torch.uint8)


def image_grid(
    images: Tensor | np.ndarray,  # uint8 [N, C, h, w]
    columns: int,
    *,
    pad: int = 0,  # pixels between and around the images, after scaling
    scale: int = 1,  # whole factor to enlarge each image by, without interpolation
) -> Tensor:
    """Arrange images in a grid, row by row: uint8 [C, H, W]. Gaps are white, or transparent if there is alpha."""
    cells = torch.as_tensor(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, c, h, w = cells.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    grid = torch.full((c, rows * (h + pad) + pad, columns * (w + pad) + pad), 255, dtype=torch.uint8)
    if c == 4:
        grid[3] = 0
    for i in range(n):
        y, x = pad + i // columns * (h + pad), pad + i % columns * (w + pad)
        grid[:, y : y + h, x : x + w] = cells[i]
    return grid


def grid_columns(
    count: int,  # number of images
    aspect: float = 1.0,  # height / width of an image
) -> int:
    """Number of columns for a roughly square grid; up to twice that many if it fills the last row."""
    square = max(1, round((count * aspect) ** 0.5))
    return next((c for c in range(square, 2 * square + 1) if count % c == 0), square)


def labeled_grid(
    cells: Tensor | np.ndarray,  # uint8 [R, K, C, h, w], inner images
    row_images: Tensor | np.ndarray | None,  # uint8 [R, C, h, w], left margin; None: only labels
    col_images: Tensor | np.ndarray | None,  # uint8 [K, C, h, w], top margin; None: only labels
    row_labels: Sequence[str],  # R texts, left of the row's image
    col_labels: Sequence[str],  # K texts, above the column's image
) -> Tensor:
    """Render a sheet of images with labels and, optionally, source images in the margins: uint8 [3, H, W].

    Images are enlarged to at least 96 pixels. Gray becomes RGB, alpha is composited onto white. Gaps and font size
    scale with the cells.
    """
    rows, columns, _, h, w = cells.shape
    times = max(1, -(-96 // min(h, w)))
    h, w = h * times, w * times
    thin, thick = max(2, min(h, w) // 48), max(8, min(h, w) // 8)
    font, texts = _fit_labels([*row_labels, *col_labels], max(14, min(h, w) // 9), w - thin)
    text_width = max((round(font.getlength(t)) for t in texts[:rows]), default=0)
    text_height = sum(font.getmetrics())
    left, top = thick + text_width + thick // 2, thick // 2 + text_height + thick // 4  # corner of the source images
    x0 = left if row_images is None else left + w + thick  # corner of the inner images
    y0 = top if col_images is None else top + h + thick
    width, height = x0 + columns * (w + thin) - thin + thick, y0 + rows * (h + thin) - thin + thick
    sheet = Image.new("RGB", (width, height), (_MARGIN,) * 3)
    draw = ImageDraw.Draw(sheet)

    def place(image: Tensor | np.ndarray, x: int, y: int) -> None:
        sheet.paste(to_channels(_to_pillow(image), 3).resize((w, h), Image.Resampling.NEAREST), (x, y))

    for k in range(columns):
        x = x0 + k * (w + thin)
        draw.text((x + w / 2, top - thick // 4), texts[rows + k], _INK_RGB, font, anchor="md")
        if col_images is not None:
            place(col_images[k], x, top)
    for r in range(rows):
        y = y0 + r * (h + thin)
        draw.text((left - thick // 2, y + h / 2), texts[r], _INK_RGB, font, anchor="rm")
        if row_images is not None:
            place(row_images[r], left, y)
        for k in range(columns):
            place(cells[r][k], x0 + k * (w + thin), y)
    return torch.from_numpy(np.array(sheet).transpose(2, 0, 1).copy())


def _fit_labels(labels: Sequence[object], size: int, width: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """Return a font, of ``size`` or as small as needed to fit all texts to ``width``, and the texts.

    The font is at least of size 10; texts that do not fit then are shortened.
    """
    font, texts = font_for([str(label) for label in labels], size)
    while size > 10 and max((font.getlength(t) for t in texts), default=0) > width:
        size -= 1
        font = font.font_variant(size=size)
    return font, [_shortened(t, font, width) for t in texts]


def font_for(
    texts: Sequence[str],
    size: int,  # in pixels
) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """Return Pillow's own font, which is Latin, or one of the system's that has more of the characters, and the texts.
    Characters that it lacks are escaped, as they would all look the same."""
    texts = list(map(printable, texts))
    default = ImageFont.load_default(size)
    assert isinstance(default, ImageFont.FreeTypeFont), "Pillow returns a TrueType font when a size is passed"
    best, missing = default, _missing(default, "".join(texts))
    for font in _system_fonts(size) if missing else ():
        if len(fewer := _missing(font, "".join(texts))) < len(missing):
            best, missing = font, fewer
    escapes = {ord(c): c.encode("ascii", "backslashreplace").decode() for c in missing}
    return best, [text.translate(escapes) for text in texts]


def _system_fonts(size: int) -> Iterator[ImageFont.FreeTypeFont]:
    for name in _SYSTEM_FONTS:
        with contextlib.suppress(OSError):  # not installed
            yield ImageFont.truetype(name, size)


def _missing(font: ImageFont.FreeTypeFont, text: str) -> set[str]:
    """The characters that look the same as a code point that is not one."""

    def render(character: str) -> bytes:
        image = Image.new("L", (2 * int(font.size), 2 * int(font.size)))
        ImageDraw.Draw(image).text((0, 0), character, 255, font)
        return image.tobytes()

    box = render("\U0010ffff")
    return {c for c in set(text) if not c.isspace() and render(c) == box}


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _to_pillow(
    image: Tensor | np.ndarray,  # uint8 [C, H, W]
) -> Image.Image:
    return from_array(image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image))
