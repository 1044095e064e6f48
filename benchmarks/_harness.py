"""Timing by turns: every candidate runs once a round, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"


def compare(
    candidates: dict[str, Callable[[], object]],  # name -> what to time; the first is ours
    rounds: int = 7,
) -> dict[str, dict[str, float]]:
    """Median seconds of each candidate, and the median over rounds of its time divided by ours in the same round."""
    for run in candidates.values():  # warm-up
        run()
    # One thread's processor time is not stretched by what else runs on the machine.
    clock = time.process_time if _on_one_thread() else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            _synchronize()
            start = clock()
            run()
            _synchronize()
            times[name].append(clock() - start)
    ours = times[next(iter(candidates))]
    return {
        name: {
            "seconds": statistics.median(ts),
            "ratio": statistics.median(t / o for t, o in zip(ts, ours, strict=True)),
        }
        for name, ts in times.items()
    }


def verify(
    name: str,
    ours: Tensor,  # [...]
    theirs: Tensor,  # [...] the same thing by the other way
    tolerance: float = 1e-3,  # of the largest value
) -> None:
    """A ratio between things that differ means nothing: raise if they do."""
    error = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    if not error <= tolerance:
        raise AssertionError(f"{name}: the results differ by {error:.1e}")


def time_by_op(
    run: Callable[[], object],
    of: tuple[str, ...],  # parts of operator names, 'convolution' for example
) -> float:
    """The share of the operators' own time that lies in operators with such names."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    rows = [(row.key, row.self_cpu_time_total) for row in profile.key_averages()]
    return sum(t for key, t in rows if any(part in key for part in of)) / sum(t for _, t in rows)


def report(
    title: str,
    table: dict[str, dict[str, float]],  # what `compare` gave
    **facts: object,  # more to be kept with it
) -> None:
    """Print a table and append it to results/<date>-<device>.json."""
    print(f"\n{title}")
    for name, row in table.items():
        print(f"  {name:<44} {row['seconds'] * 1000:9.1f} ms   {row['ratio']:5.2f} x ours")
    for name, value in facts.items():
        print(f"  {name}: {value}")
    path = RESULTS / f"{datetime.date.today()}-{_device().replace(' ', '-').lower()}.json"
    path.parent.mkdir(exist_ok=True)
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [entry for entry in entries if entry["title"] != title]
    entries.append({"title": title, "table": table, **facts, "machine": machine()})
    path.write_text(json.dumps(entries, indent=1) + "\n")


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "device": _device(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "clock": "processor time" if _on_one_thread() else "wall time",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _on_one_thread() -> bool:
    return not torch.cuda.is_available() and torch.get_num_threads() == 1


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
