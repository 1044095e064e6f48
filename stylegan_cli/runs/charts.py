"""Line charts as SVG, with the values that the page shows at the mouse pointer."""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import printable

WIDTH, HEIGHT = 400, 216  # of a chart, in units of its viewBox: about pixels, a few less on a phone
_TOP, _RIGHT, _BOTTOM = 10, 20, 40  # margins; the left one is as wide as its labels
_LETTER = 6.6  # width of a digit at the size of the labels, 11 units
_MAX_DOTS = 40  # points; lines with fewer also show dots
_MAX_POINTS = 600  # of a line; about the width of a chart in pixels

Points = list[tuple[float, "float | None"]]  # (x, y) by increasing x; None: no value


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str  # in the legend
    points: Points


@dataclass(frozen=True)
class Scale:
    """An axis: its range in values, and in units of the SVG."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def escape(text: str) -> str:
    """Escape text for HTML, and what is not text on one line."""
    return html.escape(printable(text))


def chart(
    title: str,
    unit: str,  # of the vertical axis
    lines: list[Line],  # at most 4; those without values are omitted
    span: tuple[float, float],  # kimg at both ends of the horizontal axis
    smooth: bool = False,  # show a moving average, and the values themselves faintly
    note: str = "",  # after the legend
    changes: Sequence[float] = (),  # kimg to mark with a vertical line: settings changed
) -> str:
    """A <figure>; empty if no line has a value."""
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return ""
    values = [y for line in lines for _, y in line.points if y is not None]
    y_ticks = _ticks(min(values), max(values), 6)
    left = 26 + _LETTER * max(map(len, _labels(y_ticks)))
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP, y_ticks)
    low, high = span if span[0] < span[1] else (span[0], span[0] + 1)
    x = Scale(low, high, left, WIDTH - _RIGHT, tuple(t for t in _ticks(low, high, 6) if low <= t <= high))
    prepared = [_prepare(line.points, smooth) for line in lines]
    marks = "".join(f'<path class="change" d="M{x(k)} {y.end}V{y.start}"/>' for k in changes if low <= k <= high)
    marks += "".join(_line(i, segments, x, y) for i, segments in enumerate(prepared))
    ends = {"x": [low, high, x.start, x.end], "y": [y.low, y.high, y.start, y.end]}
    data = {**ends, "lines": [_table(segments) for segments in prepared]}
    keys = [f'<span class="key c{i}">{escape(line.name)} <output></output></span>' for i, line in enumerate(lines)]
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(data, separators=(",", ":")))}">\n'
        f'<figcaption><b>{escape(title)}</b><span class="at"></span></figcaption>\n'
        f'<p class="legend">{"".join(keys)}<small>{escape(note)}</small></p>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">\n'
        f"{_axes(x, y, unit)}{marks}</svg>\n</figure>\n"
    )


def _ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """At most `most` + 2 round numbers, the first at or below `low`, the last at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - abs(low) / 2, low + abs(low) / 2) if low else (0.0, 1.0)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s for f in (1, 2, 5, 10, 20) if (s := f * power) * most >= high - low)
    return tuple(i * step for i in range(math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6) + 1))


def _labels(ticks: tuple[float, ...]) -> list[str]:
    """Ticks as text, all with the same number of decimals."""
    step, largest = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0, max(map(abs, ticks))
    if step < 1e-4 or largest >= 1e6:
        digits = math.ceil(math.log10(largest / step) + 1e-9) + 1
        return [f"{t:.{digits}g}" for t in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{t + 0.0:.{decimals}f}" for t in ticks]


def _axes(x: Scale, y: Scale, unit: str) -> str:
    """Grid, frame, tick labels and the names of both axes."""
    parts = []
    for tick, label in zip(y.ticks, _labels(y.ticks)):
        parts.append(f'<path class="grid" d="M{x.start:.1f} {y(tick)}H{x.end}"/>')
        parts.append(f'<text x="{x.start - 6:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{label}</text>')
    for tick, label in zip(x.ticks, _labels(x.ticks)):
        parts.append(f'<path class="grid" d="M{x(tick)} {y.start}v4"/>')
        parts.append(f'<text x="{x(tick)}" y="{y.start + 17}" text-anchor="middle">{label}</text>')
    middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
    parts.append(f'<path class="frame" d="M{x.start:.1f} {y.end}V{y.start}H{x.end}"/>')
    parts.append(f'<text class="name" x="{middle_x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">kimg</text>')
    turned = f'transform="translate(12 {middle_y:.1f}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="name" {turned}>{escape(unit if len(unit) < 30 else unit[:28] + "…")}</text>\n')
    return "".join(parts)


def _prepare(points: Points, smooth: bool) -> list[list[tuple[float, float, float]]]:
    """Connected segments of (x, value, value of the line), thinned to the resolution of the chart."""
    segments = _segments(points)
    total = sum(map(len, segments))
    reach = max(total // 24, 1) if smooth and total >= 12 else 0
    triples = [_smooth(segment, reach) for segment in segments]
    return [_thin(segment, -(-2 * total // _MAX_POINTS)) for segment in triples] if total > _MAX_POINTS else triples


def _segments(points: Points) -> list[list[tuple[float, float]]]:
    """Split the points at missing values: where a value is None, or a step in x far above both neighboring steps."""
    steps = [b[0] - a[0] for a, b in itertools.pairwise(points)]
    segments: list[list[tuple[float, float]]] = [[]]
    for i, (x, y) in enumerate(points):
        if 1 < i < len(steps) and steps[i - 1] > 3.5 * max(steps[i - 2], steps[i]):
            segments.append([])
        if y is None:
            segments.append([])
        else:
            segments[-1].append((x, y))
    return [segment for segment in segments if segment]


def _smooth(segment: list[tuple[float, float]], reach: int) -> list[tuple[float, float, float]]:
    """Add the mean of the values up to `reach` places away."""
    sums = [0.0, *itertools.accumulate(y for _, y in segment)]
    result = []
    for i, (x, y) in enumerate(segment):
        first, end = max(i - reach, 0), min(i + reach + 1, len(segment))
        result.append((x, y, (sums[end] - sums[first]) / (end - first) if reach else y))
    return result


def _thin(segment: list[tuple[float, float, float]], size: int) -> list[tuple[float, float, float]]:
    """The lowest and the highest of every `size` points, so that peaks are kept."""
    kept = []
    for start in range(0, len(segment), size):
        part = segment[start : start + size]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _line(index: int, segments: list[list[tuple[float, float, float]]], x: Scale, y: Scale) -> str:
    """One line: its values, its average if different, and dots if there are few points or for single points."""
    is_averaged = any(value != mean for segment in segments for _, value, mean in segment)
    has_dots = not is_averaged and sum(map(len, segments)) <= _MAX_DOTS
    parts = [_path(segments, 1, x, y, f"raw c{index}")] if is_averaged else []
    parts.append(_path(segments, 2, x, y, f"line c{index}"))
    for segment in segments:
        if has_dots or len(segment) == 1:
            parts += [f'<circle class="c{index}" cx="{x(p[0])}" cy="{y(p[2])}" r="2.6"/>' for p in segment]
    return "".join(parts) + "\n"


def _path(segments: list[list[tuple[float, float, float]]], column: int, x: Scale, y: Scale, kind: str) -> str:
    d = "".join(
        "M" + "L".join(f"{x(p[0])} {y(p[column])}" for p in segment) for segment in segments if len(segment) > 1
    )
    return f'<path class="{kind}" d="{d}"/>' if d else ""


def _table(segments: list[list[tuple[float, float, float]]]) -> list[list[float]]:
    """[all x, all values, all averages], rounded for display."""
    rows = [p for segment in segments for p in segment]
    return [[float(f"{p[column]:.{8 if column == 0 else 5}g}") for p in rows] for column in range(3)]
