"""A histogram of two distributions with marked values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..data.images import font_for

_WIDTH, _HEIGHT = 960, 540  # pixels of the image
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 40, 110, 70  # margins
_SCALE = 2  # oversampling, for smooth edges
_BINS = 30
_BACKGROUND, _FOREGROUND = (255, 255, 255), (40, 40, 40)
_COLORS = ((31, 119, 180), (230, 120, 20))


def histogram(
    distributions: Mapping[str, Sequence[float]],  # two names -> positive values
    marks: dict[str, float],  # name -> value, shown as a vertical line
    axis: str,  # title of the axis
) -> Tensor:  # uint8 [3, H, W]
    """Plot two overlapping histograms with a logarithmic axis."""
    values = [v for samples in distributions.values() for v in samples] + list(marks.values())
    low, high = math.log(min(values)), math.log(max(values))
    margin = max((high - low) * 0.05, 0.05)
    low, high = low - margin, high + margin

    def to_pixel(value: float) -> float:
        return _SCALE * (_LEFT + (math.log(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT))

    sheet = Image.new("RGBA", (_WIDTH * _SCALE, _HEIGHT * _SCALE), (*_BACKGROUND, 255))
    baseline = (_HEIGHT - _BOTTOM) * _SCALE
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(np.log(list(samples)), edges)[0] / len(samples) for samples in distributions.values()]
    max_count = max(c.max() for c in counts)
    for heights, color in zip(counts, _COLORS, strict=True):
        layer = Image.new("RGBA", sheet.size)
        draw = ImageDraw.Draw(layer)
        for k in np.flatnonzero(heights):
            top = baseline - heights[k] / max_count * (_HEIGHT - _TOP - _BOTTOM) * _SCALE
            left, right = to_pixel(math.exp(edges[k])), to_pixel(math.exp(edges[k + 1]))
            draw.rectangle((left + 1, top, right - 1, baseline), (*color, 150))
        sheet = Image.alpha_composite(sheet, layer)
    font, names = font_for([*distributions, *marks], 18 * _SCALE)
    marks = dict(zip(names[len(distributions) :], marks.values(), strict=True))
    draw = ImageDraw.Draw(sheet)
    _draw_axis(draw, font, (math.exp(low), math.exp(high)), to_pixel, baseline, axis)
    _draw_legend(draw, font, list(distributions))
    _draw_marks(draw, font, marks, to_pixel, baseline)
    small = sheet.convert("RGB").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small).transpose(2, 0, 1).copy())


def _draw_axis(draw: ImageDraw.ImageDraw, font, span: tuple[float, float], to_pixel, baseline: int, title: str) -> None:
    draw.line((_LEFT * _SCALE, baseline, (_WIDTH - _RIGHT) * _SCALE, baseline), _FOREGROUND, 2 * _SCALE)
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    ticks = [m * 10.0**k for k in decades for m in (1, 2, 5) if span[0] <= m * 10.0**k <= span[1]]
    for tick in ticks:
        draw.line((to_pixel(tick), baseline, to_pixel(tick), baseline + 6 * _SCALE), _FOREGROUND, _SCALE)
        draw.text((to_pixel(tick), baseline + 9 * _SCALE), f"{tick:g}", _FOREGROUND, font, anchor="ma")
    draw.text((_WIDTH / 2 * _SCALE, (_HEIGHT - 8) * _SCALE), title, _FOREGROUND, font, anchor="md")


def _draw_legend(draw: ImageDraw.ImageDraw, font, names: list[str]) -> None:
    x, y = _LEFT * _SCALE, 20 * _SCALE
    for name, color in zip(names, _COLORS, strict=True):
        draw.rectangle((x, y - 7 * _SCALE, x + 14 * _SCALE, y + 7 * _SCALE), (*color, 255))
        draw.text((x + 22 * _SCALE, y), name, _FOREGROUND, font, anchor="lm")
        x += 50 * _SCALE + font.getlength(name)


def _draw_marks(draw: ImageDraw.ImageDraw, font, marks: dict[str, float], to_pixel, baseline: int) -> None:
    """Draw a line with a label for each mark. Labels alternate between three heights to reduce overlap."""
    labels = []
    for k, (name, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        x, y, half = to_pixel(value), (50 + 20 * (k % 3)) * _SCALE, font.getlength(name) / 2
        draw.line((x, y + 12 * _SCALE, x, baseline), _FOREGROUND, 2 * _SCALE)
        labels.append((min(max(x, half + 4 * _SCALE), _WIDTH * _SCALE - half - 4 * _SCALE), y, name))
    for x, y, name in labels:  # on top of all lines
        draw.rectangle(draw.textbbox((x, y), name, font, anchor="mm"), _BACKGROUND)
        draw.text((x, y), name, _FOREGROUND, font, anchor="mm")
