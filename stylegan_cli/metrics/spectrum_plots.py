"""Plots of average power spectra: heat maps, and slices from the center to the right and along the diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..data.images import font_for
from .spectrum import PADDING, Spectrum

_SCALE = 2  # oversampling, for smooth edges
_FONT = 14  # pixels
_BACKGROUND, _INK, _GRID, _FRAME = (255, 255, 255), (40, 40, 40), (225, 225, 225), (150, 150, 150)

_LEVELS = (-40, 20, 5)  # dB of the heat map's contours: first, last, step
_SMOOTHING = 1.25  # standard deviation, in frequencies of the image itself
_MAP_SIDE = 300  # pixels of the longer side of a heat map
_MAPS = 4  # heat maps in a row, at most
_COLORS = ((13, 8, 65), (36, 52, 131), (32, 110, 150), (55, 163, 143), (138, 205, 105), (245, 232, 90), (255, 253, 225))

_DECIBELS = (-50, 30, 10)  # of the slices' axis: first, last, step
_SLICE_WIDTH, _SLICE_HEIGHT = 420, 320  # pixels
_LINES = ((40, 40, 40), (31, 119, 180), (226, 106, 20), (44, 150, 60), (190, 40, 60), (120, 80, 180), (20, 160, 170))


def heat_maps(
    spectra: Sequence[Spectrum],
) -> Tensor:  # uint8 [3, H, W]
    """Render the spectra side by side, with frequency 0 at the center and a contour every 5 dB."""
    aspect = spectra[0].height / spectra[0].width
    width, height = round(_MAP_SIDE * min(1, 1 / aspect)), round(_MAP_SIDE * min(1, aspect))
    left, top, gap, bottom, bar = 52, 40, 24, 44, 86
    columns = min(len(spectra), _MAPS)
    rows = -(-len(spectra) // columns)
    cell_width, cell_height = left + width + gap, top + height + bottom
    plot = _Plot(columns * cell_width + bar, rows * cell_height, [s.name for s in spectra])
    for i, spectrum in enumerate(spectra):
        x, y = i % columns * cell_width + left, i // columns * cell_height + top
        plot.image(_render_map(spectrum, width * _SCALE, height * _SCALE), x, y)
        plot.frame(x, y, width, height)
        plot.text(x + width / 2, y - 12, spectrum.name, "ms", fit=width)
        for fraction in (0, 0.25, 0.5, 0.75, 1):
            plot.tick(x + fraction * width, y + height, f"{(fraction - 0.5) * spectrum.width:g}")
            plot.tick(x, y + fraction * height, f"{(fraction - 0.5) * spectrum.height:g}", vertical=True)
        plot.text(x + width / 2, y + height + 40, "cycles per image", "ms")
    x = columns * cell_width + 4
    _add_bar(plot, x, top, 16, height)
    return plot.finish()


def _render_map(spectrum: Spectrum, width: int, height: int) -> np.ndarray:  # uint8 [height, width, 3]
    centered = np.fft.fftshift(spectrum.decibels)
    closed = np.pad(centered, ((0, 1), (0, 1)), "wrap")  # the highest frequency is at both ends
    smooth = Image.fromarray(gaussian_filter(closed, _SMOOTHING * PADDING).astype(np.float32))
    # The centers of the outermost bins lie on the frame.
    box = (0.5, 0.5, smooth.width - 0.5, smooth.height - 0.5)
    return _colorize(np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC, box)))


def _colorize(values: np.ndarray) -> np.ndarray:  # [H, W] dB -> uint8 [H, W, 3]
    low, high, step = _LEVELS
    at = np.clip((values - low) / (high - low), 0, 1)
    anchors = np.linspace(0, 1, len(_COLORS))
    colors = np.stack([np.interp(at, anchors, channel) for channel in zip(*_COLORS)], 2)
    band = np.floor((np.clip(values, low, high) - low) / step)
    contour = np.zeros(band.shape, bool)
    contour[:, 1:] |= band[:, 1:] != band[:, :-1]
    contour[1:] |= band[1:] != band[:-1]
    return np.where(contour[..., None], colors * 0.55, colors).round().astype(np.uint8)


def _add_bar(plot: _Plot, x: int, y: int, width: int, height: int) -> None:
    low, high, step = _LEVELS
    values = np.linspace(high, low, height * _SCALE)[:, None].repeat(width * _SCALE, 1)
    plot.image(_colorize(values), x, y)
    plot.frame(x, y, width, height)
    for value in range(low, high + 1, 2 * step):
        plot.text(x + width + 8, y + (high - value) / (high - low) * height, f"{value} dB", "lm")


def slices(
    spectra: Sequence[Spectrum],
) -> Tensor:  # uint8 [3, H, W]
    """Plot the slices of all spectra at 0 and at 45 degrees."""
    left, top, gap, bottom = 62, 44, 76, 50
    plot = _Plot(left + 2 * _SLICE_WIDTH + gap + 24, 0, [s.name for s in spectra])
    rows = plot.legend_rows([s.name for s in spectra], left)
    top += 24 * len(rows)
    plot.resize(top + _SLICE_HEIGHT + bottom)
    for row, names in enumerate(rows):
        for i, x in names:
            plot.line([(x, 22 + 24 * row), (x + 22, 22 + 24 * row)], _LINES[i % len(_LINES)], 3)
            plot.text(x + 30, 22 + 24 * row, spectra[i].name, "lm")
    for k, (title, side) in enumerate((("0 degrees", 0.5), ("45 degrees", math.sqrt(0.5)))):
        x = left + k * (_SLICE_WIDTH + gap)
        curves = [s.diagonal if k else s.horizontal for s in spectra]
        _add_slices(plot, curves, (x, top), title, spectra[0].width, side)
    return plot.finish()


def _add_slices(
    plot: _Plot,
    curves: list[tuple[np.ndarray, np.ndarray]],
    corner: tuple[int, int],
    title: str,
    image_width: int,
    side: float,  # highest frequency, in image widths
) -> None:
    (x, y), (low, high, step) = corner, _DECIBELS

    def to_y(value: float) -> float:
        return y + (high - min(max(value, low), high)) / (high - low) * _SLICE_HEIGHT

    plot.text(x + _SLICE_WIDTH / 2, y - 12, title, "ms")
    for value in range(low, high + 1, step):
        plot.line([(x, to_y(value)), (x + _SLICE_WIDTH, to_y(value))], _GRID)
        plot.tick(x, to_y(value), f"{value}", vertical=True)
    for eighths in range(int(side * 8) + 1):
        at = x + eighths / 8 / side * _SLICE_WIDTH
        plot.line([(at, y), (at, y + _SLICE_HEIGHT)], _GRID)
        plot.tick(at, y + _SLICE_HEIGHT, f"{eighths * image_width / 8:g}")
    for i, (frequencies, decibels) in enumerate(curves):
        points = [
            (x + f / (side * image_width) * _SLICE_WIDTH, to_y(d)) for f, d in zip(frequencies, decibels, strict=True)
        ]
        plot.line(points, _LINES[i % len(_LINES)], 2)
    plot.frame(x, y, _SLICE_WIDTH, _SLICE_HEIGHT)
    plot.text(x + _SLICE_WIDTH / 2, y + _SLICE_HEIGHT + 42, "cycles per image", "ms")
    plot.text(x - 44, y - 12, "dB", "ls")


class _Plot:
    """A sheet to put lines and texts on, in pixels of the result."""

    def __init__(self, width: int, height: int, names: Sequence[str]):
        self.font: ImageFont.FreeTypeFont = font_for(names, _FONT * _SCALE)[0]
        self.sheet = Image.new("RGB", (width * _SCALE, max(height, 1) * _SCALE), _BACKGROUND)
        self.draw = ImageDraw.Draw(self.sheet)

    def resize(self, height: int) -> None:
        self.sheet = Image.new("RGB", (self.sheet.width, height * _SCALE), _BACKGROUND)
        self.draw = ImageDraw.Draw(self.sheet)

    def line(self, points: Sequence[tuple[float, float]], color: tuple[int, int, int], width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, color, round(width * _SCALE), joint="curve")

    def text(self, x: float, y: float, text: str, anchor: str, fit: float = math.inf) -> None:
        font = self.font
        while font.getlength(text) > fit * _SCALE and font.size > 9 * _SCALE:
            font = font.font_variant(size=font.size - 1)
        self.draw.text((x * _SCALE, y * _SCALE), text, _INK, font, anchor=anchor)

    def tick(self, x: float, y: float, text: str, vertical: bool = False) -> None:
        """A short line outward from a point on the frame, and its label."""
        if vertical:
            self.line([(x - 5, y), (x, y)], _FRAME)
            self.text(x - 9, y, text, "rm")
        else:
            self.line([(x, y), (x, y + 5)], _FRAME)
            self.text(x, y + 8, text, "mt")

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        box = (x * _SCALE, y * _SCALE, (x + width) * _SCALE - 1, (y + height) * _SCALE - 1)
        self.draw.rectangle(box, outline=_FRAME, width=_SCALE)

    def image(self, pixels: np.ndarray, x: float, y: float) -> None:  # uint8 [H, W, 3], oversampled
        self.sheet.paste(Image.fromarray(pixels), (round(x * _SCALE), round(y * _SCALE)))

    def legend_rows(self, names: Sequence[str], left: int) -> list[list[tuple[int, float]]]:
        """The index and the position of each entry, in rows that fit the width."""
        rows: list[list[tuple[int, float]]] = [[]]
        x = float(left)
        for i, name in enumerate(names):
            width = 30 + self.font.getlength(name) / _SCALE + 28
            if rows[-1] and x + width > self.sheet.width / _SCALE:
                rows.append([])
                x = float(left)
            rows[-1].append((i, x))
            x += width
        return rows

    def finish(self) -> Tensor:  # uint8 [3, H, W]
        size = self.sheet.width // _SCALE, self.sheet.height // _SCALE
        return torch.from_numpy(np.array(self.sheet.resize(size, Image.Resampling.BOX)).transpose(2, 0, 1).copy())
