"""The README's tables, from a results file.

python benchmarks/table.py benchmarks/results/2026-11-21-cpu.json
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from _targets import targets


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--op", multiple=True, help="Only rows of bias_act, upfirdn2d, modulated_conv2d, synthesis, train_step.")
def main(path: Path, op: tuple[str, ...]) -> None:
    entries = json.loads(path.read_text())
    print("\n\n".join(filter(None, (markdown(entry, op) for entry in entries))))
    rows = [row for entry in entries for row in entry.get("rows", [])]
    if lines := [f"- {text}: {found} ({'met' if met else 'missed'})" for text, found, met in targets(rows)]:
        print("\n" + "\n".join(lines))


def markdown(
    entry: dict,  # of a results file
    op: tuple[str, ...] = (),  # empty: all
) -> str:
    if "table" in entry:  # as they were first written
        first, *others = entry["table"].items()
        head = ["case", "ours", *(name for name, _ in others)]
        rows = [[entry["title"], _time(first[1]["seconds"]), *(f"{row['ratio']:.2f}x" for _, row in others)]]
        return _table(head, rows)
    chosen = [row for row in entry["rows"] if not op or row["op"] in op]
    others = list(dict.fromkeys(name for row in chosen for name in row.get("ratio", ())))
    extra = [name for name, key in _EXTRA.items() if any(key in row for row in chosen)]
    head = ["case", "type", "ours", *extra, *(f"{name} / ours" for name in others)]
    rows = [_cells(row, extra, others) for row in chosen]
    return f"{about(entry)}\n\n{_table(head, rows)}" if rows else ""


def about(entry: dict) -> str:
    machine = entry["machine"]
    where = f"{machine['device']} ({machine['processor']}), PyTorch {machine['torch']}, CUDA {machine['cuda']}"
    ceilings = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in entry["ceilings"].items())
    return f"`{entry['command']}` on {where}. Measured ceilings: {ceilings}. Peer: {entry['peer']}."


_EXTRA = {"of a copy": "of_copy", "TFLOP/s": "tflops", "images/s": "images_per_second", "s/kimg": "seconds_per_kimg"}


def _cells(row: dict, extra: list[str], others: list[str]) -> list[str]:
    if row.get("ours") is None:
        return [row["case"], row["dtype"], "wrong" if row["wrong"] else "failed"] + [""] * len(extra + others)
    facts = {
        "of a copy": f"{row['of_copy']:.0%}" if "of_copy" in row else "",
        "TFLOP/s": f"{row['tflops']:.1f}" if "tflops" in row else "",
        "images/s": f"{row['images_per_second']['ours']:.4g}" if "images_per_second" in row else "",
        "s/kimg": f"{row['seconds_per_kimg']['ours']:.4g}" if "seconds_per_kimg" in row else "",
    }
    ratios = [f"{row['ratio'][name]:.2f}x" if name in row["ratio"] else _why_not(row, name) for name in others]
    return [row["case"], row["dtype"], _time(row["ours"]), *(facts[name] for name in extra), *ratios]


def _why_not(row: dict, name: str) -> str:
    return "wrong" if name in row["wrong"] else "failed" if name in row["failed"] else ""


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g} us"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    main()
