"""DiceBear critters with exact masks of their parts: the same image with each part in one color, nothing translucent.

Image and mask of a seed text are those of `make_demo_dataset`: '<seed>-<number>'.
"""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from stylegan_cli.data.codec import fit, to_channels
from stylegan_cli.data.demo import _definition

_styles: dict[bool, Any] = {}  # flat or not; a definition takes a while to be validated

CLASSES = {"background": "#000000", "body": "#0000ff", "top": "#00ff00", "eyes": "#ff0000", "mouth": "#ffff00"}
_SCALE = 4  # a pixel has the class of most of its 4 x 4 points


def render_parts(
    seed: str,
    size: int,  # pixels of a side
) -> tuple[Image.Image, Image.Image]:  # RGB: the image and its mask
    """Raises SganError if DiceBear is not installed."""
    image = fit(_render(seed, 64, False), (size, size), "center", "box")
    flat = np.asarray(_render(seed, size * _SCALE, True)).astype(int)
    palette = np.array([list(bytes.fromhex(color[1:])) for color in CLASSES.values()])
    nearest = np.abs(flat[:, :, None] - palette).sum(3).argmin(2)
    blocks = nearest.reshape(size, _SCALE, size, _SCALE)
    votes = np.stack([(blocks == k).sum((1, 3)) for k in range(len(palette))])
    return image, Image.fromarray(palette[votes.argmax(0)].astype(np.uint8))


def _render(seed: str, side: int, flat: bool) -> Image.Image:
    import resvg_py
    from dicebear import Avatar, Style

    if flat not in _styles:
        definition = _definition("critters")
        _styles[flat] = Style(_flat(definition) if flat else definition)
    svg = Avatar(_styles[flat], {"seed": seed}).to_string()
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as image:
        return to_channels(image.convert("RGBA"), 3)


def _flat(definition: dict[str, Any]) -> dict[str, Any]:
    """The style with the color of its class for every part, without what is translucent: shadows, lights, patterns."""
    definition = json.loads(json.dumps(definition))
    for values in definition["colors"].values():
        count = len(values["values"])
        values["values"] = [f"#{k:06x}" for k in range(1, count + 1)]  # replaced below; as many, so that seeds agree
    for name in ("body", "top", "eyes", "mouth"):
        for variant in definition["components"][name]["variants"].values():
            variant["elements"] = _in_one_color(variant["elements"], CLASSES[name])
    for name in ("pattern", "cheeks"):
        for variant in definition["components"][name]["variants"].values():
            variant["elements"] = []
    background = definition["colors"]["background"]["values"]
    definition["colors"]["background"]["values"] = [CLASSES["background"]] * len(background)
    return definition


def _in_one_color(elements: list[dict], color: str) -> list[dict]:
    result = []
    for element in copy.deepcopy(elements):
        attributes = element.get("attributes", {})
        if float(attributes.get("opacity", 1)) < 1:
            continue
        for name in ("fill", "stroke"):
            if attributes.get(name, "none") != "none":
                attributes[name] = color
        if "children" in element and element.get("name") not in ("defs", "clipPath"):
            element["children"] = _in_one_color(element["children"], color)
        result.append(element)
    return result
