"""Two distributions and some values in one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_WIDTH, _HEIGHT = 960, 540  # pixels of the image
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 40, 110, 70  # margins
_FINE = 2  # drawn so many times as large, then reduced: smooth edges
_BINS = 30
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_COLORS = ((31, 119, 180), (230, 120, 20))


def histogram(
    sides: Mapping[str, Sequence[float]],  # two names, each with its values, all above 0
    marks: dict[str, float],  # name -> value, drawn as a line
    axis: str,  # what the values are
) -> Tensor:  # uint8 [3, H, W]
    """Over a logarithmic axis; bars lie over each other, half transparent."""
    values = [v for side in sides.values() for v in side] + list(marks.values())
    low, high = math.log(min(values)), math.log(max(values))
    margin = max((high - low) * 0.05, 0.05)
    low, high = low - margin, high + margin

    def x_of(value: float) -> float:
        return _FINE * (_LEFT + (math.log(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT))

    sheet = Image.new("RGBA", (_WIDTH * _FINE, _HEIGHT * _FINE), (*_PAPER, 255))
    floor = (_HEIGHT - _BOTTOM) * _FINE
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(np.log(list(side)), edges)[0] / len(side) for side in sides.values()]
    tallest = max(c.max() for c in counts)
    for heights, color in zip(counts, _COLORS, strict=True):
        layer = Image.new("RGBA", sheet.size)
        draw = ImageDraw.Draw(layer)
        for k in np.flatnonzero(heights):
            top = floor - heights[k] / tallest * (_HEIGHT - _TOP - _BOTTOM) * _FINE
            left, right = x_of(math.exp(edges[k])), x_of(math.exp(edges[k + 1]))
            draw.rectangle((left + 1, top, right - 1, floor), (*color, 150))
        sheet = Image.alpha_composite(sheet, layer)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18 * _FINE)
    _axis(draw, font, (math.exp(low), math.exp(high)), x_of, floor, axis)
    _legend(draw, font, list(sides))
    _marks(draw, font, marks, x_of, floor)
    small = sheet.convert("RGB").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small).transpose(2, 0, 1).copy())


def _axis(draw: ImageDraw.ImageDraw, font, span: tuple[float, float], x_of, floor: int, title: str) -> None:
    draw.line((_LEFT * _FINE, floor, (_WIDTH - _RIGHT) * _FINE, floor), _INK, 2 * _FINE)
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    ticks = [m * 10.0**k for k in decades for m in (1, 2, 5) if span[0] <= m * 10.0**k <= span[1]]
    for tick in ticks:
        draw.line((x_of(tick), floor, x_of(tick), floor + 6 * _FINE), _INK, _FINE)
        draw.text((x_of(tick), floor + 9 * _FINE), f"{tick:g}", _INK, font, anchor="ma")
    draw.text((_WIDTH / 2 * _FINE, (_HEIGHT - 8) * _FINE), title, _INK, font, anchor="md")


def _legend(draw: ImageDraw.ImageDraw, font, names: list[str]) -> None:
    x, y = _LEFT * _FINE, 20 * _FINE
    for name, color in zip(names, _COLORS, strict=True):
        draw.rectangle((x, y - 7 * _FINE, x + 14 * _FINE, y + 7 * _FINE), (*color, 255))
        draw.text((x + 22 * _FINE, y), name, _INK, font, anchor="lm")
        x += 50 * _FINE + font.getlength(name)


def _marks(draw: ImageDraw.ImageDraw, font, marks: dict[str, float], x_of, floor: int) -> None:
    """A line for each, its name above; names take turns on three heights so that neighbors do not meet."""
    placed = []
    for k, (name, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        x, y, half = x_of(value), (50 + 20 * (k % 3)) * _FINE, font.getlength(name) / 2
        draw.line((x, y + 12 * _FINE, x, floor), _INK, 2 * _FINE)
        placed.append((min(max(x, half + 4 * _FINE), _WIDTH * _FINE - half - 4 * _FINE), y, name))
    for x, y, name in placed:  # over the lines
        draw.rectangle(draw.textbbox((x, y), name, font, anchor="mm"), _PAPER)
        draw.text((x, y), name, _INK, font, anchor="mm")
