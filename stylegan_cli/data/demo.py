"""Demo datasets of DiceBear avatars: any number, any size, the same for the same seed."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..errors import SganError, suggest
from ..progress import Progress, silent
from ..version import __version__
from .codec import fit, png_bytes, to_channels
from .labels import classes_by_value
from .parallel import ordered_map
from .writer import dataset_writer

MISSING = "none"  # value of an attribute that an image lacks


@dataclass(frozen=True)
class DemoReport:
    """What `make_demo_dataset` wrote."""

    path: str
    num: int  # number of images
    height: int
    width: int
    attributes: dict[str, int]  # distinct values per attribute
    classes: tuple[str, ...]  # empty without labels
    license: str  # license of the images


def make_demo_dataset(
    dest: str | os.PathLike,  # path of the zip
    *,
    style: str = "critters",  # DiceBear style
    num: int = 4000,  # number of images
    size: tuple[int, int] = (64, 64),  # (height, width); a rectangle is cropped from the center of a square
    seed: int = 0,
    label: str | None = None,  # attribute whose values become the classes
    colors: int | None = None,  # number of palette colors, for a smaller file; None: full color
    workers: int | None = None,  # number of processes; None: one per core
    progress: Progress = silent,
) -> DemoReport:
    """Write a dataset of avatars; its attributes are the parts and colors in which they differ.

    Image i is made from the seed text '<seed>-<i>'. Raises SganError if DiceBear is not installed, or does not have
    the style or the attribute.
    """
    if num < 1:
        raise SganError(f"The number of images is {num}.", hint="It must be at least 1.")
    definition = _definition(style)
    render = functools.partial(_render, definition, size, seed, colors)
    all_attributes: list[dict[str, str]] = []
    work = ordered_map(render, range(num), workers)
    with dataset_writer(dest) as out, contextlib.closing(work):
        for png, attributes in work:
            out.add(png)
            all_attributes.append(attributes)
            progress("rendering", len(all_attributes), num)
        attributes = _columns(all_attributes)
        numbers, classes = _classes(attributes, label, style)
        provenance = {
            **_provenance(style, definition),
            "size": list(size),
            "seed": seed,
            "colors": colors,
            "channels": 3,
            "label": label,
            "classes": list(classes),
        }
        out.finish(numbers, attributes, provenance)
    counts = {name: len(set(values)) for name, values in attributes.items()}
    return DemoReport(str(dest), num, *size, counts, classes, provenance["license"])


def _definition(style: str) -> dict[str, Any]:
    """Load the definition of a style from DiceBear's package."""
    try:
        from importlib.resources import files

        import dicebear  # noqa: F401
        import dicebear_styles
        import resvg_py  # noqa: F401
    except ImportError as e:
        raise SganError(
            "DiceBear, which renders demo datasets, is not installed.", hint="Run pip install 'stylegan-cli[demo]'."
        ) from e
    styles = sorted(f.name[:-5] for f in files(dicebear_styles).iterdir() if f.name.endswith(".json"))
    if style not in styles:
        hint = suggest(style, styles) or "Choose from " + ", ".join(styles) + "."
        raise SganError(f"DiceBear has no style {style!r}.", hint=hint)
    return json.loads((files(dicebear_styles) / f"{style}.json").read_text("utf-8"))


def _render(
    definition: dict[str, Any], size: tuple[int, int], seed: int, colors: int | None, number: int
) -> tuple[bytes, dict[str, str]]:
    """Render one avatar as a PNG; return it with its attributes."""
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


_styles: dict[str, Any] = {}  # a definition is validated once per process


def _style(name: str, definition: dict[str, Any]) -> Any:
    from dicebear import Style

    if name not in _styles:
        _styles[name] = Style(definition)
    return _styles[name]


def _attributes(options: dict[str, Any]) -> dict[str, str]:
    """Keep the options that are words: variants and colors. Numbers, such as offsets and angles, make no classes."""
    words = {k: v if isinstance(v, list) else [v] for k, v in options.items() if not k.endswith("ColorFill")}
    return {k: " ".join(v) for k, v in words.items() if v and all(isinstance(x, str) for x in v)}


def _columns(all_attributes: list[dict[str, str]]) -> dict[str, list[str]]:
    """Return one value per image for each attribute that differs between images."""
    names = sorted({name for attributes in all_attributes for name in attributes})
    columns = {name: [attributes.get(name, MISSING) for attributes in all_attributes] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _classes(attributes: dict[str, list[str]], label: str | None, style: str) -> tuple[list[int] | None, tuple]:
    if label is None:
        return None, ()
    if label not in attributes:
        hint = suggest(label, attributes) or "Choose from " + ", ".join(attributes) + "."
        raise SganError(f"The images of style {style} do not differ in an attribute {label!r}.", hint=hint)
    labels = classes_by_value(attributes[label])
    return labels.values.tolist(), labels.names


def _provenance(style: str, definition: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    meta = definition["meta"]
    return {
        "source": f"DiceBear {style}",
        "version": __version__,
        "dicebear": {p: version(p) for p in ("dicebear-core", "dicebear-styles", "resvg-py")},
        "creator": meta["creator"]["name"],
        "license": meta["license"]["name"],
    }
