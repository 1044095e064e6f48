"""The report of a run as one self-contained HTML page: charts, images over time, settings, next commands."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import string
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import quote
from ..files import write_atomic
from ..progress import Progress, silent, track
from .charts import Line, Points, chart, escape
from .commands import train_command, use_command
from .folders import latest_snapshot
from .history import HISTORY, describe_changes, flatten, read_history
from .records import HELD_OUT, number, read_config, read_metrics, read_stats
from .summary import RunSummary, best_of, summarize_run, unit_of

_TEMPLATE = Path(__file__).with_name("page.html")
_GRID = re.compile(r"([a-z]+)-([0-9]+(?:\.[0-9]+)?)\.png")  # images that a recipe writes at every snapshot
_WHAT = {"reconstructions": "held-out images, each followed by its reconstruction"}  # they show; by name
_MAX_GRIDS = 60
_WIDTHS = (1024, 768, 512, 384, 256, 192, 128)  # of a grid, in pixels: the first at which all of them fit
_BUDGET = 5_500_000  # bytes of all images, before base64 adds a third

_DISTANCES = ("discriminator", "lpips", "efficientnet", "identity", "pixel")  # losses of encoders

# Title, unit, legend -> name in stats.jsonl, whether it is noisy.
_CHARTS: list[tuple[str, str, dict[str, str], bool]] = [
    ("Losses", "loss", {"G": "loss/G", "D": "loss/D"}, True),
    ("Scores of D", "logit", {"real": "score/real", "fake": "score/fake"}, True),
    ("Augmentation", "p, r_t", {"p": "augment/p", "r_t": "augment/r_t"}, True),
    ("R1 and R2 penalties", "squared gradient", {"R1": "r1/penalty", "R2": "r2/penalty"}, True),
    ("Path length", "length", {"mean length": "path/length"}, True),
    ("Path-length penalty", "penalty", {"penalty": "path/penalty"}, True),
    ("PSNR of held-out images", "dB", {"PSNR": f"{HELD_OUT}psnr"}, False),
    ("Distance of held-out images", "distance", {x: HELD_OUT + x for x in _DISTANCES}, False),
    ("Latents of held-out images", "deviations of W", {x: HELD_OUT + x for x in ("spread", "offset")}, False),
    ("Loss of pixels", "loss", {"mean square": "loss/pixel", "absolute": "loss/absolute"}, True),
    ("Loss of features", "loss", {x: f"loss/{x}" for x in _DISTANCES if x != "pixel"}, True),
    ("Loss of what the task judges", "loss", {"mean square": "loss/judged"}, True),
    ("Loss of latents", "variances of W", {x: f"loss/{x}" for x in ("latent", "spread")}, True),
    ("Loss of the critic", "loss", {"critic": "loss/critic"}, True),
    ("Learning rate", "learning rate", {"learning rate": "lr"}, False),
    ("Weight of R1 and R2", "gamma", {"gamma": "gamma"}, False),
    ("Speed", "sec/kimg", {"sec/kimg": "sec_per_kimg"}, True),
    ("Diversity", "ratio to the data's", {"fakes": "diversity"}, False),
    ("Skipped steps", "steps", {"not finite": "guard/skipped"}, False),
]
_KNOWN = {"kimg", "seconds", *(name for _, _, lines, _ in _CHARTS for name in lines.values())}


def write_page(
    folder: str | os.PathLike,  # of the run
    out: str | os.PathLike | None = None,  # the page; None: report.html in the folder
    progress: Progress = silent,  # while images are scaled down
) -> Path:
    """Write the page of a run and return its path. Raises SganError if it cannot be written."""
    folder = Path(folder)
    path = Path(out) if out else folder / "report.html"
    write_atomic(path, make_page(folder, progress))
    return path


def make_page(
    folder: Path,  # of the run
    progress: Progress = silent,
) -> str:
    """The page as text, of at most about 8 MB."""
    summary, config, stats = summarize_run(folder), read_config(folder), read_stats(folder)
    history = read_history(folder)
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(summary.name),
        state=summary.state,
        failure=f'<p class="failure">{escape(summary.failure)}</p>' if summary.failure else "",
        done=f"{min(summary.kimg / summary.of_kimg, 1):.1%}" if summary.of_kimg else "0%",
        facts=_rows(_facts(summary, config, stats) | _changes(history)),
        charts=_charts(stats, read_metrics(folder), [entry["kimg"] for entry in history])
        or "<p>No statistics yet.</p>",
        images=_images(folder, progress),
        commands="\n".join(map(escape, _commands(folder.resolve(), summary, config))),
        config=_rows(_settings(config)) or "<tr><td>There is no config.json.</td></tr>",
        created=time.strftime("%Y-%m-%d %H:%M"),
    )


# --------------------------------------------------------------------------------------- header, tables


def _facts(summary: RunSummary, config: dict[str, Any], stats: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts in the header."""
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    of, pace = summary.of_kimg, summary.sec_per_kimg
    left = max(of - summary.kimg, 0) * pace if of and pace and summary.state == "running" else None
    seconds = [value for line in stats if (value := number(line.get("seconds"))) is not None]
    facts = {
        "progress": f"{summary.kimg:g} of {of:g} kimg" if of else f"{summary.kimg:g} kimg",
        "preset": config.get("cfg"),
        "model": config.get("model"),
        "task": config.get("task"),
        "dataset": data.get("path"),
        "images": f"{data['num']} of {data.get('height')}x{data.get('width')}" if "num" in data else None,
        "time": duration(seconds[-1]) if seconds else None,
        "time left": duration(left) if left else None,
        "speed": f"{pace:.3g} sec/kimg" if pace else None,
        **_best(summary),
        "last change": time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.changed)),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _best(summary: RunSummary) -> dict[str, str]:
    if summary.metric is None:
        return {}
    value = f"{summary.best:.5g}{unit_of(summary.metric)}"
    return {summary.metric: f"{value} at best, at {summary.best_kimg:g} kimg"}


def duration(
    seconds: float,
) -> str:
    """'2d 03h', '2h 05m' or '1m 09s'."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{hours}h {minutes % 60:02d}m" if hours else f"{minutes}m {int(seconds % 60):02d}s"


def _rows(facts: dict[str, Any]) -> str:
    return "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>\n" for k, v in facts.items())


def _settings(config: dict[str, Any]) -> dict[str, str]:
    return {name: _plain(value) for name, value in flatten(config).items() if name != HISTORY}


def _changes(history: list[dict[str, Any]]) -> dict[str, str]:
    """Where settings changed, for the header."""
    return {f"changed at {entry['kimg']:g} kimg": describe_changes(entry["changes"]) for entry in history}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def _commands(folder: Path, summary: RunSummary, config: dict[str, Any]) -> list[str]:
    """Commands to continue the run and to use its model or encoder."""
    longer = f" --kimg {2 * summary.of_kimg:g}" if summary.state == "complete" and summary.of_kimg else ""
    best = folder / "best.safetensors"
    lines = [f"{train_command(config)} --resume {quote(folder)}{longer}"]
    if best.is_file() or latest_snapshot(folder):
        lines.append(use_command(best if best.is_file() else folder, config))
    return lines


# ----------------------------------------------------------------------------------------------- charts


def _charts(
    stats: list[dict[str, Any]], metrics: dict[str, list[tuple[float, float]]], changes: Sequence[float] = ()
) -> str:
    """A chart for each metric, then for the statistics, with unknown names last, and marks where settings changed."""
    end = max([line["kimg"] for line in stats[-1:]] + [values[-1][0] for values in metrics.values()], default=0.0)
    parts = []
    for name, values in metrics.items():
        kimg, best = best_of(name, values)
        unit = unit_of(name)
        note = f"best {best:.5g}{unit} at {kimg:g} kimg"
        parts.append(chart(name, unit.strip() or name, [Line("value", list(values))], (0, end), False, note, changes))
    others = sorted({name for line in stats for name in line} - _KNOWN)
    for title, unit, names, noisy in [*_CHARTS, *((name, name, {name: name}, True) for name in others)]:
        lines = [Line(label, _points(stats, name)) for label, name in names.items()]
        if title != "Skipped steps" or any(y for _, y in lines[0].points):
            parts.append(chart(title, unit, lines, (0, end), noisy, changes=changes))
    return "".join(parts)


def _points(stats: list[dict[str, Any]], name: str) -> Points:
    """(kimg, value) of the lines with that name; None where the value is not a finite number."""
    return [(line["kimg"], number(line[name])) for line in stats if name in line]


# --------------------------------------------------------------------------------------------- images


def _images(folder: Path, progress: Progress) -> str:
    """The grids of generated images or reconstructions over time, and the grid of real images."""
    grids = [(m[1], float(m[2]), p) for p in folder.iterdir() if (m := _GRID.fullmatch(p.name))]
    first = min((name for name, _, _ in grids), default="")
    chosen = sorted((kimg, path) for name, kimg, path in grids if name == first)
    if len(chosen) > _MAX_GRIDS:
        chosen = [chosen[round(i * (len(chosen) - 1) / (_MAX_GRIDS - 1))] for i in range(_MAX_GRIDS)]
    reals, *fakes = _encode_all([folder / "reals.png", *(p for _, p in chosen)], progress)
    shown = [(kimg, uri) for (kimg, _), uri in zip(chosen, fakes, strict=True) if uri]
    what = _WHAT.get(first, "generated images")
    parts = []
    if shown:
        parts.append(
            f'<figure><img id="now" src="{shown[-1][1]}" alt="{what}">'
            f'<figcaption>{what} at <output id="when">{shown[-1][0]:g}</output> kimg</figcaption></figure>'
        )
    if reals:
        parts.append(f'<figure><img src="{reals}" alt="real images"><figcaption>real images</figcaption></figure>')
    pair = f'<div class="pair">{"".join(parts)}</div>\n' if parts else "<p>No images yet.</p>"
    return pair + (_strip(shown) if len(shown) > 1 else "")


def _strip(shown: list[tuple[float, str]]) -> str:
    last = len(shown) - 1
    images = "".join(f'<img src="{uri}" data-kimg="{kimg:g}" alt="at {kimg:g} kimg">\n' for kimg, uri in shown)
    return (
        '<div class="controls"><button id="play" aria-label="play">▶</button>'
        f'<input id="slider" type="range" min="0" max="{last}" value="{last}" aria-label="time"></div>\n'
        f'<div class="strip">{images}</div>'
    )


def _encode_all(paths: list[Path], progress: Progress) -> list[str | None]:
    """Images as data URIs, small enough that all fit into the budget; None for one that cannot be read."""
    widths = _WIDTHS[_WIDTHS.index(_estimate_width(paths)) :]
    encoded: list[bytes] = []
    for width in widths:
        left, encoded = _BUDGET, []
        for path in track(paths, "images", progress):
            encoded.append(_encode(path, width))
            left -= len(encoded[-1])
            if left < 0 and width != widths[-1]:
                break
        else:
            break
    return ["data:image/webp;base64," + base64.b64encode(data).decode() if data else None for data in encoded]


def _estimate_width(paths: list[Path]) -> int:
    """The first width at which all images should fit, estimated from a few of them."""
    few = paths[:: len(paths) // 4 + 1]
    for width in _WIDTHS:
        size = sum(len(_encode(path, width)) for path in few)
        if size * len(paths) <= 0.9 * _BUDGET * len(few):
            return width
    return _WIDTHS[-1]


def _encode(path: Path, width: int) -> bytes:
    """One image as WebP; empty if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.thumbnail((width, 4 * width))
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=85, method=2)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    return buffer.getvalue()
