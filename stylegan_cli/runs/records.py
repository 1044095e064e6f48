"""The records of a run, read leniently: older runs lack some, and killed ones may have an incomplete last line."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

GAN = "gan"  # the recipe whose snapshots are models; also used by runs that predate recipe names
ENCODER = "encoder"  # the recipe whose snapshots are encoders
PIX2PIX = "pix2pix"  # the recipe whose snapshots are translators
HELD_OUT = "held_out/"  # beginning of the names of what is measured on images that an encoder is not fitted to

_METRIC = re.compile(r"metric-(.+)\.jsonl")
_TAIL = 1 << 16  # bytes
_LARGEST = 1e30  # larger numbers are not measurements


def read_config(
    folder: Path,  # of a run
) -> dict[str, Any]:
    """The contents of config.json; empty if it is missing or broken."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        config = json.loads((folder / "config.json").read_bytes())
        return config if isinstance(config, dict) else {}
    return {}


def recipe_of(
    values: dict[str, Any],  # of config.json, or the metadata of a training state
) -> str | None:
    """The name of the recipe that a run trains; None without values."""
    return str(values.get("recipe", GAN)) if values else None


def read_stats(
    folder: Path,  # of a run
    tail: bool = False,  # only the last lines
) -> list[dict[str, Any]]:
    """The lines of stats.jsonl by increasing `kimg`, one each. After a rollback, later lines replace earlier ones."""
    kept: list[dict[str, Any]] = []
    for line in _lines(folder / "stats.jsonl", tail):
        kimg = number(line.get("kimg"))
        if kimg is None:
            continue
        while kept and kept[-1]["kimg"] > kimg:
            kept.pop()
        same = kept.pop() if kept and kept[-1]["kimg"] == kimg else {}
        kept.append({**same, **line, "kimg": kimg})
    return kept


def read_metrics(
    folder: Path,  # of a run
) -> dict[str, list[tuple[float, float]]]:
    """(kimg, value) of each metric by increasing kimg; metrics in the order of their files' times."""
    files = [(_modified(p), m[1], p) for p in _entries(folder) if (m := _METRIC.fullmatch(p.name))]
    metrics = {}
    for _, name, path in sorted(files):
        lines = ((number(line.get("kimg")), number(line.get("value"))) for line in _lines(path))
        if values := {kimg: value for kimg, value in lines if None not in (kimg, value)}:  # the last one of each kimg
            metrics[name] = sorted(values.items())
    return metrics


def metric_lines(
    folder: str | os.PathLike,  # of a run
) -> list[dict[str, Any]]:
    """The records of all metrics."""
    return [line for p in _entries(Path(folder)) if _METRIC.fullmatch(p.name) for line in _lines(p)]


def record_metric(
    folder: str | os.PathLike,  # of the model
    metric: str,  # full name
    value: float,
    kimg: float,
    snapshot: str,  # its file name
    **settings: Any,  # of the measurement
) -> None:
    """Add a line to metric-<name>.jsonl."""
    line = {"metric": metric, "value": value, "kimg": kimg, "snapshot": snapshot, **settings}
    append_line(Path(folder) / f"metric-{metric}.jsonl", json.dumps(line))


def append_line(
    path: Path,
    line: str,
) -> None:
    """Add a line to a file, whole or not at all."""
    with open(path, "ab") as f:
        end = f.seek(0, os.SEEK_END)
        try:
            f.write(line.encode(errors="backslashreplace") + b"\n")
            f.flush()
        except OSError:
            os.truncate(path, end)
            raise


def number(
    value: Any,  # from JSON
) -> float | None:
    """A finite number as a float; None for other values."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= _LARGEST else None  # nan is not <=


def last_change(
    folder: Path,  # of a run
) -> float:
    """The time of the last change of a run's files, except reports, in seconds since 1970."""
    times = [_modified(p) for p in _entries(folder) if not p.name.startswith(".") and p.suffix != ".html"]
    return max(times, default=_modified(folder))


def _lines(path: Path, tail: bool = False) -> list[dict[str, Any]]:
    """The readable lines of a file with one JSON object per line."""
    lines = []
    with contextlib.suppress(OSError), open(path, "rb") as f:
        start = max(os.path.getsize(path) - _TAIL, 0) if tail else 0
        f.seek(start)
        for text in f.read().splitlines()[1 if start else 0 :]:
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
    return lines


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):  # removed since it was listed
        return path.stat().st_mtime
    return 0.0
