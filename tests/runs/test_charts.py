"""Charts: points match the axes, ticks are readable, missing values leave gaps."""

import json
import math
import random
import re
import xml.etree.ElementTree as ET

import pytest

from stylegan_cli.runs import charts
from stylegan_cli.runs.charts import WIDTH, Line, chart


def figure(lines, span=(0, 100), **options):
    return ET.fromstring(chart("Losses", "loss", lines, span, **options))


def numbers(text):
    return [float(n) for n in re.findall(r"-?[0-9.]+(?:e[-+]?[0-9]+)?", text)]


def path_points(fig, kind):
    """The points of a path by segment, in units of the SVG."""
    d = next((p.get("d") for p in fig.iter("path") if p.get("class") == kind), "")  # "M1 2L3 4M5 6L7 8"
    pairs = [numbers(part) for part in d.split("M")[1:]]
    return [list(zip(p[::2], p[1::2])) for p in pairs]


def horizontal_labels(fig):
    """Left and right end of each tick label of the horizontal axis."""
    texts = [t for t in fig.iter("text") if t.get("text-anchor") == "middle" and not t.get("class")]
    return [(float(t.get("x")) - 3.3 * len(t.text), float(t.get("x")) + 3.3 * len(t.text)) for t in texts]


def data(fig):
    return json.loads(fig.get("data-chart"))


RISE = Line("G", [(x, x / 10) for x in range(0, 101, 2)])


def test_points_match_the_axes():
    fig = figure([RISE])
    (segment,) = path_points(fig, "line c0")
    texts = {t.text: t for t in fig.iter("text")}
    left, bottom = float(texts["0"].get("x")), None
    assert texts["kimg"] is not None and texts["loss"] is not None
    ticks = [t for t in fig.iter("text") if t.get("text-anchor") == "end"]
    assert [t.text for t in ticks] == ["0", "2", "4", "6", "8", "10"]
    bottom, top = float(ticks[0].get("y")) - 4, float(ticks[-1].get("y")) - 4
    for (px, py), (x, y) in zip(segment, RISE.points):
        assert px == pytest.approx(left + x / 100 * (segment[-1][0] - left), abs=0.2)
        assert py == pytest.approx(bottom + y / 10 * (top - bottom), abs=0.2)


RANDOM = random.Random(1)
CASES = {
    "flat": [3.0] * 20,
    "zero": [0.0] * 20,
    "one": [5.0],
    "tiny": [1e-9 * i for i in range(20)],
    "huge": [1e25 * i for i in range(20)],
    "close": [1e6 + 1e-3 * i for i in range(20)],
    "negative": [-5.0 - i for i in range(20)],
    "crossing": [math.sin(i) for i in range(50)],
    "spike": [0.01] * 30 + [1e4] + [0.01] * 30,
    "noise": [RANDOM.gauss(0, 1) for _ in range(3000)],
}


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_points_are_inside_and_labels_do_not_overlap(name, smooth):
    values = CASES[name]
    points = [(25000 * (i + 1) / len(values), v) for i, v in enumerate(values)]
    fig = figure([Line("a", points)], (0, 25000), smooth=smooth)
    left, top, bottom, right = numbers(next(p.get("d") for p in fig.iter("path") if p.get("class") == "frame"))
    inside = [p for kind in ("line c0", "raw c0") for segment in path_points(fig, kind) for p in segment]
    inside += [(float(c.get("cx")), float(c.get("cy"))) for c in fig.iter("circle")]
    assert inside
    for x, y in inside:
        assert left - 0.1 <= x <= right + 0.1 and top - 0.1 <= y <= bottom + 0.1
    vertical = [t for t in fig.iter("text") if t.get("text-anchor") == "end"]
    assert 2 <= len(vertical) <= 8 and len({t.text for t in vertical}) == len(vertical)
    heights = [float(t.get("y")) for t in vertical]
    assert all(a - b > 11 for a, b in zip(heights, heights[1:]))
    assert all(float(t.get("x")) - 6.6 * len(t.text) > 18 for t in vertical)  # does not overlap the axis title
    ends = horizontal_labels(fig)
    assert len(ends) >= 3 and all(a[1] + 3 < b[0] for a, b in zip(ends, ends[1:]))
    assert ends[0][0] >= 0 and ends[-1][1] <= WIDTH


@pytest.mark.parametrize("span", [(0, 0.008), (0, 0), (0, 1), (0, 7), (0, 123.456), (0, 25000), (0, 3e7)])
def test_runs_of_any_length(span):
    fig = figure([Line("a", [(span[1] / 2, 1.0), (span[1], 2.0)])], span)
    ends = horizontal_labels(fig)
    assert len(ends) >= 2 and all(a[1] < b[0] for a, b in zip(ends, ends[1:]))


def test_missing_values_leave_gaps():
    points = [(float(x), 1.0 + x) for x in range(100) if not 40 <= x < 60]  # missing lines
    points[70] = (points[70][0], None)  # not finite
    segments = path_points(figure([Line("a", points)]), "line c0")
    assert [len(s) for s in segments] == [40, 30, 9]
    assert sum(len(column) for column in data(figure([Line("a", points)]))["lines"][0]) == 3 * 79


def test_sparse_values_are_connected():
    """R1 is measured every 16 steps, diversity at snapshots; the interval may change when a run is resumed."""
    points = [(10.0 * i, 1.0 * i) for i in range(5)] + [(100.0 + 50 * i, 5.0) for i in range(5)]
    assert len(path_points(figure([Line("a", points)], (0, 300)), "line c0")) == 1


def test_single_value_is_a_dot():
    points = [(0.0, 1.0), (1.0, None), (2.0, 2.0), (3.0, None), (4.0, 1.5), (5.0, 1.5)]
    fig = figure([Line("a", points)], (0, 5))
    assert len(list(fig.iter("circle"))) == 4
    assert [len(s) for s in path_points(fig, "line c0")] == [2]


def test_smoothing_keeps_the_values_visible():
    rng = random.Random(0)
    points = [(float(i), 5 + rng.gauss(0, 1)) for i in range(101)]
    fig = figure([Line("a", points)], smooth=True)
    raw, mean = ([p[1] for p in path_points(fig, kind)[0]] for kind in ("raw c0", "line c0"))
    assert max(mean) - min(mean) < 0.6 * (max(raw) - min(raw))
    xs, values, means = data(fig)["lines"][0]
    assert xs == [x for x, _ in points] and values == pytest.approx([y for _, y in points], rel=1e-4)
    assert means[50] == pytest.approx(sum(y for _, y in points[46:55]) / 9, rel=1e-4)


def test_long_runs_are_thinned_but_keep_their_peaks():
    points = [(float(i), 100.0 if i == 31_337 else i % 7) for i in range(50_000)]
    text = chart("a", "a", [Line("a", points)], (0, 50_000), smooth=True)
    xs, values, _ = data(ET.fromstring(text))["lines"][0]
    assert len(text) < 60_000 and len(xs) <= 600
    assert 100.0 in values and xs[values.index(100.0)] == 31_337


def test_no_values():
    assert chart("a", "a", [], (0, 1)) == chart("a", "a", [Line("a", []), Line("b", [(1, None)])], (0, 1)) == ""


def test_text_is_escaped():
    evil = "</figure><script>alert('\"&')</script>"
    text = chart(evil, evil, [Line(evil, [(0, 1.0)])], (0, 1), note=evil)
    assert "<script" not in text
    assert ET.fromstring(text).find("figcaption/b").text == evil


def test_ticks():
    assert charts._ticks(0, 10, 6) == (0, 2, 4, 6, 8, 10)
    assert charts._labels(charts._ticks(-0.31, 0.27, 6)) == ["-0.4", "-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"]
    assert charts._labels((0.0, 5e-6, 1e-5)) == ["0", "5e-06", "1e-05"]
    assert len(set(charts._labels(charts._ticks(1e6, 1e6 + 1, 6)))) >= 3
