"""Write images with what they were made from, and lay many of them out on one sheet."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from ..errors import SganError
from ..files import atomic_path
from .codec import from_array, to_channels

_FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
_DESCRIPTION = 0x010E  # EXIF ImageDescription, which JPEG and WebP have in place of PNG's text
_MARGIN = 245  # gray of a sheet's margin
_INK_RGB = (40, 40, 40)  # color of its labels


def save_image(
    image: Tensor | np.ndarray,  # uint8 [C, H, W], C = 1, 3 or 4
    path: str | os.PathLike,
    *,
    metadata: dict[str, str] | None = None,  # kept in the file: PNG text; JPEG and WebP: EXIF description
    format: str | None = None,  # 'png', 'jpg' or 'webp'; None: by the name's ending
) -> None:
    """Write one image, whole or not at all. JPEG has no alpha: there RGBA is laid on white.

    Raises SganError if the format is unknown or the file cannot be written.
    """
    ending = (format or Path(path).suffix.lstrip(".")).lower()
    if ending not in _FORMATS:
        raise SganError(f"{path}: images are not written as {ending or 'this'!r}.", hint="Choose png, jpg or webp.")
    pillow_image, kind = _to_pillow(image), _FORMATS[ending]
    options: dict = {}
    if kind == "PNG":
        options["pnginfo"] = info = PngInfo()
        for key, value in (metadata or {}).items():
            info.add_text(key, value)
    else:
        options["quality"] = 95
        if metadata:
            options["exif"] = exif_of(json.dumps(metadata))
    if kind == "JPEG" and pillow_image.mode == "RGBA":
        pillow_image = to_channels(pillow_image, 3)
    with atomic_path(path) as temporary:
        pillow_image.save(temporary, kind, **options)


def exif_of(
    description: str,
) -> Image.Exif:
    """EXIF that holds a description and nothing else."""
    exif = Image.Exif()
    exif[_DESCRIPTION] = description
    return exif


def read_metadata(
    path: str | os.PathLike,
) -> dict[str, str]:
    """What `save_image` or `write_video` was given as metadata; of another's image its PNG text, or nothing."""
    try:
        with Image.open(path) as image:
            if isinstance(image, PngImageFile):
                image.load()  # text may follow the pixels
                return {k: str(v) for k, v in image.text.items()}
            kept = image.info.get("comment") if image.format == "GIF" else image.getexif().get(_DESCRIPTION)
            content = json.loads(kept or "{}")
    except (ValueError, RecursionError):  # a description that is not ours
        return {}
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise SganError(f"{path} is no image that can be read.") from e
    return {k: v for k, v in content.items() if isinstance(v, str)} if isinstance(content, dict) else {}


def to_uint8(
    images: Tensor,  # float [N, C, H, W], -1 black to 1 white
) -> Tensor:
    """uint8 [N, C, H, W]: x * 127.5 + 128, cut off at 0 and 255 and rounded down."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_rgb(
    images: Tensor,  # [N, 1, 3 or 4, H, W], uint8, or float from -1 black to 1 white
    background: int = 255,  # gray under what is transparent, 0 to 255
) -> Tensor:  # [N, 3, H, W] of the same type
    """Gray repeated, alpha laid on the background."""
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
    pad: int = 0,  # pixels between images and around them, after enlarging
    scale: int = 1,  # enlarge each image so many times, keeping its pixels square and sharp
) -> Tensor:
    """All images on one sheet, row by row: uint8 [C, H, W]. Gaps and empty places are white or, with alpha, clear."""
    cells = torch.as_tensor(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, c, h, w = cells.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    sheet = torch.full((c, rows * (h + pad) + pad, columns * (w + pad) + pad), 255, dtype=torch.uint8)
    if c == 4:
        sheet[3] = 0
    for i in range(n):
        y, x = pad + i // columns * (h + pad), pad + i % columns * (w + pad)
        sheet[:, y : y + h, x : x + w] = cells[i]
    return sheet


def grid_columns(
    count: int,  # images
    aspect: float = 1.0,  # height / width of one
) -> int:
    """Columns of a sheet that is about square, or up to twice as wide where its last row is then full."""
    square = max(1, round((count * aspect) ** 0.5))
    return next((c for c in range(square, 2 * square + 1) if count % c == 0), square)


def labeled_grid(
    cells: Tensor | np.ndarray,  # uint8 [R, K, C, h, w], the inner images
    row_images: Tensor | np.ndarray | None,  # uint8 [R, C, h, w], the left margin; None: labels alone
    col_images: Tensor | np.ndarray | None,  # uint8 [K, C, h, w], the top margin; None: labels alone
    row_labels: Sequence[str],  # R texts, written left of the row's image
    col_labels: Sequence[str],  # K texts, written above the column's image
) -> Tensor:
    """A table of images with labels and, where there are any, its sources on the margins: uint8 [3, H, W].

    Small images are enlarged until they are 96 pixels. Gray becomes RGB, alpha is laid on white. All gaps and letters
    follow the size of a cell.
    """
    rows, columns, _, h, w = cells.shape
    times = max(1, -(-96 // min(h, w)))
    h, w = h * times, w * times
    thin, thick = max(2, min(h, w) // 48), max(8, min(h, w) // 8)
    font, texts = _lettering([*row_labels, *col_labels], max(14, min(h, w) // 9), w - thin)
    text_width = max((round(font.getlength(t)) for t in texts[:rows]), default=0)
    text_height = sum(font.getmetrics())
    left, top = thick + text_width + thick // 2, thick // 2 + text_height + thick // 4  # of the source images
    x0 = left if row_images is None else left + w + thick  # of the inner images
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


def _lettering(labels: Sequence[object], size: int, width: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """Pillow's own font, as large as lets every text fit ``width``, and the texts, shortened where 10 is too large."""
    texts, font = [str(label) for label in labels], _font(size)
    while size > 10 and max((font.getlength(t) for t in texts), default=0) > width:
        size -= 1
        font = _font(size)
    return font, [_shortened(t, font, width) for t in texts]


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's font of a given size is a TrueType font"
    return font


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
