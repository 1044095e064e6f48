"""The state and progress of a run, in brief."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .folders import latest_snapshot
from .lock import is_running
from .records import (
    ENCODER,
    HELD_OUT,
    PIX2PIX,
    last_change,
    number,
    read_config,
    read_metrics,
    read_stats,
    recipe_of,
)

_IN_DECIBELS = re.compile(r"eq[tr][0-9]|psnr")
_HIGHER_IS_BETTER = re.compile(r"is[0-9]|eq[tr][0-9]|psnr|.*(precision|recall|density|coverage|accuracy)")


@dataclass(frozen=True)
class RunSummary:
    """One run at a glance."""

    name: str  # of the folder
    path: str  # of the folder
    state: str  # 'running', 'complete', 'stopped', 'failed'
    kimg: float  # thousands of images shown so far
    of_kimg: float | None  # length of the run; None: unknown
    sec_per_kimg: float | None  # at the last line of its statistics
    metric: str | None  # the first in its configuration, else the one with the oldest file; 'psnr' of other recipes
    best: float | None  # the metric's best value
    best_kimg: float | None  # where it was measured
    failure: str | None  # reason, if it failed
    changed: float  # time of the last change, in seconds since 1970


def summarize_run(
    folder: str | os.PathLike,  # of the run
) -> RunSummary:
    """Summarize a run from its files; missing or broken ones are skipped."""
    folder = Path(folder)
    config, stats = read_config(folder), read_stats(folder, tail=True)
    kimg, of_kimg, failure = _kimg(folder, stats), number(config.get("kimg")), read_failure(folder)
    fits = recipe_of(config) in (ENCODER, PIX2PIX)
    metrics = read_held_out(folder) if fits else read_metrics(folder)
    metric, best_kimg, best = _best(metrics, config)
    paces = [pace for line in stats if (pace := number(line.get("sec_per_kimg"))) is not None]
    return RunSummary(
        name=folder.resolve().name,
        path=str(folder),
        state=_state(folder, failure, of_kimg is not None and kimg >= of_kimg),
        kimg=kimg,
        of_kimg=of_kimg,
        sec_per_kimg=paces[-1] if paces else None,
        metric=metric,
        best=best,
        best_kimg=best_kimg,
        failure=failure,
        changed=last_change(folder),
    )


def best_of(
    name: str,  # of a metric
    values: list[tuple[float, float]],  # (kimg, value)
) -> tuple[float, float]:
    """The pair with the best value, or the earliest of several."""
    sign = -1 if _HIGHER_IS_BETTER.match(name) else 1
    return min(values, key=lambda pair: sign * pair[1])


def unit_of(
    name: str,  # of a metric
) -> str:
    """The unit of a metric's values, with a space before it; empty if there is none."""
    return " dB" if _IN_DECIBELS.match(name) else ""


def read_held_out(
    folder: Path,  # of a run that fits an encoder or translator
) -> dict[str, list[tuple[float, float]]]:
    """(kimg, PSNR in dB) of the held-out images, as from `read_metrics`."""
    lines = [(line["kimg"], number(line.get(f"{HELD_OUT}psnr"))) for line in read_stats(folder)]
    values = [(kimg, value) for kimg, value in lines if value is not None]
    return {"psnr": values} if values else {}


def read_failure(
    folder: Path,  # of a run
) -> str | None:
    """The reason of a run's failure; None if it has not failed."""
    with contextlib.suppress(OSError):
        return (folder / "failure.txt").read_text(encoding="utf-8", errors="replace").strip() or "Unknown reason."
    return None


def _kimg(folder: Path, stats: list[dict[str, Any]]) -> float:
    snapshot = latest_snapshot(folder)
    saved = float(snapshot.stem.partition("-")[2]) if snapshot else 0.0
    return max(saved, stats[-1]["kimg"] if stats else 0.0)


def _best(metrics: dict[str, list[tuple[float, float]]], config: dict[str, Any]) -> tuple[str | None, Any, Any]:
    """Name, kimg and value of the main metric."""
    configured = config.get("metrics")
    configured = configured if isinstance(configured, list) else [configured]
    order = [name for name in (*configured, *metrics) if isinstance(name, str) and name in metrics]
    return (order[0], *best_of(order[0], metrics[order[0]])) if order else (None, None, None)


def _state(folder: Path, failure: str | None, complete: bool) -> str:
    if is_running(folder):
        return "running"
    if failure is not None:
        return "failed"
    return "complete" if complete else "stopped"
