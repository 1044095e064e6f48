"""Sets to try things with: drawings by DiceBear, any number at any size, the same for the same seed."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..errors import SganError, nearest
from ..progress import Progress, silent
from ..version import __version__
from .codec import fit, png_bytes, to_channels
from .labels import classes_by_value
from .parallel import ordered_map
from .writer import writing

MISSING = "none"  # value of an attribute that a drawing lacks


@dataclass(frozen=True)
class DemoReport:
    """What `draw_set` made."""

    path: str
    num: int
    height: int
    width: int
    attributes: dict[str, int]  # distinct values per attribute
    classes: tuple[str, ...]  # empty without labels
    license: str  # of the drawings


def draw_set(
    dest: str | os.PathLike,  # the zip to write
    *,
    style: str = "critters",  # a DiceBear style
    num: int = 4000,  # images
    size: tuple[int, int] = (64, 64),  # (height, width); drawings are square, a rectangle is cut from the middle
    seed: int = 0,
    label: str | None = None,  # the attribute whose values become the classes
    colors: int | None = None,  # palette PNGs of so many colors, to keep the file small; None: full color
    workers: int | None = None,  # processes; None: one per core
    progress: Progress = silent,
) -> DemoReport:
    """Draw a set with its attributes: the parts and colors that differ from image to image.

    Image i is drawn from the seed text '<seed>-<i>'. Raises SganError if DiceBear is not installed, or if it has no
    such style or attribute.
    """
    if num < 1:
        raise SganError(f"{num} is no number of images.")
    definition = _definition(style)
    draw = functools.partial(_draw, definition, size, seed, colors)
    every: list[dict[str, str]] = []
    work = ordered_map(draw, range(num), workers)
    with writing(dest) as out, contextlib.closing(work):
        for png, attributes in work:
            out.add(png)
            every.append(attributes)
            progress("drawing", len(every), num)
        attributes = _columns(every)
        numbers, classes = _classes(attributes, label, style)
        made = {
            **_made(style, definition),
            "size": list(size),
            "seed": seed,
            "colors": colors,
            "channels": 3,
            "label": label,
            "classes": list(classes),
        }
        out.finish(numbers, attributes, made)
    counts = {name: len(set(values)) for name, values in attributes.items()}
    return DemoReport(str(dest), num, *size, counts, classes, made["license"])


def _definition(style: str) -> dict[str, Any]:
    """The style as DiceBear publishes it."""
    try:
        from importlib.resources import files

        import dicebear  # noqa: F401
        import dicebear_styles
        import resvg_py  # noqa: F401
    except ImportError as e:
        raise SganError("Drawing demo sets needs DiceBear.", hint="pip install 'stylegan-cli[demo]'") from e
    known = sorted(f.name[:-5] for f in files(dicebear_styles).iterdir() if f.name.endswith(".json"))
    if style not in known:
        hint = nearest(style, known) or "There are " + ", ".join(known) + "."
        raise SganError(f"DiceBear has no style {style!r}.", hint=hint)
    return json.loads((files(dicebear_styles) / f"{style}.json").read_text("utf-8"))


def _draw(
    definition: dict[str, Any], size: tuple[int, int], seed: int, colors: int | None, number: int
) -> tuple[bytes, dict[str, str]]:
    """One drawing as a PNG, and its attributes."""
    import resvg_py
    from dicebear import Avatar

    avatar = Avatar(_style(definition["meta"]["source"]["name"], definition), {"seed": f"{seed}-{number}"})
    svg, side = avatar.to_string(), max(size)
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts="<text" not in svg)
    with Image.open(io.BytesIO(bytes(png))) as image:
        image = fit(to_channels(image.convert("RGBA"), 3), size, "center", "box")
    if colors is not None:
        image = image.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return png_bytes(image, optimize=True), _attributes(avatar.to_json()["options"])


_styles: dict[str, Any] = {}  # in each process, so that a definition is validated once


def _style(name: str, definition: dict[str, Any]) -> Any:
    from dicebear import Style

    if name not in _styles:
        _styles[name] = Style(definition)
    return _styles[name]


def _attributes(options: dict[str, Any]) -> dict[str, str]:
    """The options that are words: variants and colors. Numbers, such as shifts and angles, are no classes."""
    words = {k: v if isinstance(v, list) else [v] for k, v in options.items() if not k.endswith("ColorFill")}
    return {k: " ".join(v) for k, v in words.items() if v and all(isinstance(x, str) for x in v)}


def _columns(every: list[dict[str, str]]) -> dict[str, list[str]]:
    """Per attribute that differs among the images, one value an image."""
    names = sorted({name for attributes in every for name in attributes})
    columns = {name: [attributes.get(name, MISSING) for attributes in every] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _classes(attributes: dict[str, list[str]], label: str | None, style: str) -> tuple[list[int] | None, tuple]:
    if label is None:
        return None, ()
    if label not in attributes:
        hint = nearest(label, attributes) or "There are " + ", ".join(attributes) + "."
        raise SganError(f"Images of the style {style} do not differ in an attribute {label!r}.", hint=hint)
    numbers, classes = classes_by_value(attributes[label])
    return numbers.tolist(), classes


def _made(style: str, definition: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    meta = definition["meta"]
    return {
        "source": f"DiceBear {style}",
        "version": __version__,
        "dicebear": {p: version(p) for p in ("dicebear-core", "dicebear-styles", "resvg-py")},
        "creator": meta["creator"]["name"],
        "license": meta["license"]["name"],
    }
