"""How fast it shall be on a GPU, read off measured rows."""

from __future__ import annotations

import statistics

COMPOSITES = ("kernels", "composite", "reference", "grouped", "compiled")  # what the fused kernel has to beat


def targets(
    rows: list[dict],  # of results files
) -> list[tuple[str, str, bool]]:
    """What is asked, what was measured, whether that is enough; nothing where nothing was measured."""
    return [
        *_bandwidth(rows),
        # Where the op chooses cuDNN between our kernels it is compared with itself: what differs is noise.
        *_at_least("modulated_conv2d is never slower than the best composite", 0.97, min, _layers(rows, 0)),
        *_at_least("modulated_conv2d, from 256² up, against the best composite", 1.3, min, _layers(rows, 256)),
        *_at_least("synthesis is faster than the peer's everywhere", 1.0, min, _against_peer(rows)),
        *_at_least("synthesis against the peer's, median", 1.5, statistics.median, _against_peer(rows)),
    ]


def _bandwidth(rows: list[dict]) -> list[tuple[str, str, bool]]:
    """Where there is a GPU: on a CPU there is no composite beside ours."""
    found = []
    for op in ("bias_act", "upfirdn2d"):
        chosen = [row for row in rows if row["op"] == op and row["size"] >= 128 and "composite" in row["seconds"]]
        shares = {row["case"]: row["of_copy"] for row in chosen if "of_copy" in row}
        found += _at_least(f"{op} of the bandwidth of a copy, planes of 128² and up", 0.85, min, shares)
    return found


def _layers(rows: list[dict], size: int) -> dict[str, float]:
    """Case -> time of the fastest composite over ours."""
    chosen = [row for row in rows if row["op"] == "modulated_conv2d" and row["size"] >= size]
    chosen = [row for row in chosen if "kernels" in row["ratio"]]
    return {row["case"]: min(row["ratio"][name] for name in COMPOSITES if name in row["ratio"]) for row in chosen}


def _against_peer(rows: list[dict]) -> dict[str, float]:
    return {row["case"]: row["ratio"]["peer"] for row in rows if row["op"] == "synthesis" and "peer" in row["ratio"]}


def _at_least(text: str, wanted: float, of, found: dict[str, float]) -> list[tuple[str, str, bool]]:
    if not found:
        return []
    value, worst = of(found.values()), min(found, key=found.get)
    return [(f"{text}, at least {wanted:g}", f"{value:.2f}, least at {worst}", value >= wanted)]
