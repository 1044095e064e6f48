"""Performance targets on a GPU, checked against measured rows."""

from __future__ import annotations

COMPOSITES = ("kernels", "composite", "reference", "grouped", "compiled")  # what the fused kernel must beat


def targets(
    rows: list[dict],  # of results files
) -> list[tuple[str, str, bool]]:
    """(target, measurement, whether it is met) for each target with measurements."""
    return [
        *_bandwidth(rows),
        # If the op chooses cuDNN between our kernels, it is compared with itself: only noise differs.
        *_at_least("modulated_conv2d is never slower than the best composite", 0.97, _layers(rows, 0)),
        *_at_least("modulated_conv2d, from 256² up, against the best composite", 1.3, _layers(rows, 256)),
        *_at_least("filtered_lrelu against PyTorch operations", 2, _filtered_lrelu(rows, "composite")),
        *_at_least("filtered_lrelu is never slower than the peer's", 1.0, _filtered_lrelu(rows, "peer")),
        *_at_least("synthesis against the peer's best layout", 2.0, _against_peer(rows, "synthesis")),
        *_at_least("training against the peer's best layout", 1.5, _against_peer(rows, "trainer")),
    ]


def _bandwidth(rows: list[dict]) -> list[tuple[str, str, bool]]:
    """Only for GPU rows: on a CPU there is no composite to compare with."""
    results = []
    for op in ("bias_act", "upfirdn2d"):
        selected = [row for row in rows if row["op"] == op and row["size"] >= 128 and "composite" in row["seconds"]]
        shares = {row["case"]: row["of_copy"] for row in selected if "of_copy" in row}
        results += _at_least(f"{op} of the bandwidth of a copy, planes of 128² and up", 0.85, shares)
    return results


def _layers(rows: list[dict], size: int) -> dict[str, float]:
    """Case -> time of the fastest composite over ours."""
    selected = [row for row in rows if row["op"] == "modulated_conv2d" and row["size"] >= size]
    selected = [row for row in selected if "kernels" in row["ratio"]]
    return {row["case"]: min(row["ratio"][name] for name in COMPOSITES if name in row["ratio"]) for row in selected}


def _filtered_lrelu(rows: list[dict], other: str) -> dict[str, float]:
    return {r["case"]: r["ratio"][other] for r in rows if r["op"] == "filtered_lrelu" and other in r["ratio"]}


def _against_peer(rows: list[dict], op: str) -> dict[str, float]:
    """Case -> time of the peer over ours, in its best layout."""
    ratios = {row["case"]: _peers(row) for row in rows if row["op"] == op}
    return {case: min(values) for case, values in ratios.items() if values}


def _peers(row: dict) -> list[float]:
    return [ratio for name, ratio in row["ratio"].items() if name.startswith("peer")]


def _at_least(
    text: str,
    target: float,
    values: dict[str, float],  # case -> measured value
) -> list[tuple[str, str, bool]]:
    if not values:
        return []
    worst = min(values, key=values.get)
    return [(f"{text}, at least {target:g}", f"{values[worst]:.2f}, lowest for {worst}", values[worst] >= target)]
