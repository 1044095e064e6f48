"""Markdown tables of benchmark results.

python benchmarks/table.py                                           (a summary of all committed results)
python benchmarks/table.py --docs                                    (write that into the pages in docs/)
python benchmarks/table.py benchmarks/results/2026-11-21-cpu.json    (one file, with times and ceilings)
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from _results import RESULTS
from _targets import targets
from _training_tables import training_tables

# Title of a table -> the ops in it. Tables appear in this order.
KINDS = {
    "Quality": ("quality",),
    "Synthesis": ("synthesis", "stylegan3", "generate"),
    "Training": ("train_step", "trainer", "versions", "growth", "augment", "busy"),
    "Projection": ("project",),
    "Encoders": ("encoder",),
    "Codes": ("codes",),
    "Modes": ("modes",),
    "Translation": ("translation",),
    "Guides": ("guide",),
    "Metrics": ("frechet", "features", "fid"),
    "Ops": (
        "bias_act",
        "upfirdn2d",
        "add_skip",
        "minibatch_std",
        "activated_blur",
        "scaled_weights",
        "modulated_conv2d",
        "filtered_lrelu",
    ),
    "Datasets": ("data",),
    "Editing": ("editing",),
    "Explorer": ("explorer",),
    "Dragging": ("dragging",),
    "Segmentation": ("segmentation",),
}
NOTE = "Ratio: the time of the alternative over ours, measured in the same run. Above 1, ours is faster."
NOTES = {
    "Quality": "10,000 images of the bundled model beside the bundled dataset. Ratio: compared with a smaller "
    "model, the StyleGAN2 of 32 x 32 pixels in `tests/trained`, whose images are enlarged. Above 1, ours is better.",
    "Projection": f"{NOTE} Passes alone are a lower bound, not an alternative: 0.98x means that all else in a step "
    "costs 2 %.",
    "Metrics": f"{NOTE} torch-fidelity is version 0.4.0, with the same images and weights.",
    "Synthesis": f"{NOTE} Freed memory is kept, as in `sgan`, unless the row says that the C library returned it.",
    "Codes": "What a code of `sgan train --cfg demo-stylegan2 --info 8` (a preset called `demo` then) says about an "
    "attribute that the model never saw, and at most could. Ratio: over what shuffled codes seem to say.",
    "Modes": "Two digits in one image, 16x16, after 10 kimg, means of two runs. Ratio: of the modes covered.",
    "Translation": "Ratio: the LPIPS (VGG16) of the alternative over ours, on held-out images.",
    "Guides": "Of each method, the share of images with both features. Ratio: its diversity or kernel distance over "
    "that of fine-tuning without a guide.",
    "Explorer": "Ratio: one synthesis alone over the time from a request to its frame; of memory, the end over the "
    "first minute.",
    "Editing": "Ratio: the share with our directions over the share with random directions.",
    "Dragging": "One handle in each of 50 images, a target 4 to 8 pixels away, in any direction. Ratio: to the share "
    "with a mask, or with the image of another seed; of the change, that without the mask over that with it.",
    "Segmentation": "Intersection over union with exact masks of images that nothing was fitted to. Ratio: to that of "
    "the alternative.",
}
DOCS = Path(__file__).parents[1] / "docs"
TRAINING = RESULTS / "training"  # files of the scripts that train
START, END = "<!-- tables -->\n", "<!-- end of tables -->"
COLUMNS = ("what", "against", "ratio", "device", "versions", "command", "date")

# Descriptions of candidates whose names are short.
ALTERNATIVES = {
    "busy": "1,000 spins",
    "before": "the checkout named in the command",
    "bare": "only the passes of generator and loss network",
    "compiled": "plain PyTorch under torch.compile",
    "composite": "PyTorch operations arranged to be fast",
    "w+ projection": "projection in w+, 400 steps",
    "default": "OpenMP's default settings",
    "eigenvalues": "eigenvalues of the matrix product",
    "full size": "training at full size",
    "graphed": "ours as a CUDA graph",
    "grouped": "grouped convolution with per-sample weights",
    "passive": "OMP_WAIT_POLICY=passive",
    "quiet": "10,000 spins",
    "peer": "the peer named in the command",
    "reference": "plain PyTorch",
    "scipy": "scipy.linalg.sqrtm",
    "singles": "the same images one by one",
    "unprepared": "the network itself, as in training",
    "zipfile": "Python's zipfile",
}
# Terms in results files from before the glossary -> today's.
_TERMS = {
    "pictures": "images",
    "picture": "image",
    "the packaged set": "the bundled dataset",
    "fades in": "fading in",
    "is there": "stabilizing",
}


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--op", multiple=True, help="Only rows of this op, such as modulated_conv2d or synthesis.")
@click.option("--docs", is_flag=True, help="Write the tables into docs/benchmarks.md and docs/families.md.")
def main(path: Path | None, op: tuple[str, ...], docs: bool) -> None:
    """Print Markdown tables of one results file, or a summary of all committed ones."""
    if docs:
        if path is not None or op:
            raise click.UsageError("--docs writes the summary of all results; it takes no other argument.")
        for name, tables in pages().items():
            page = DOCS / name
            page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
        return
    if path is None:
        print(summary(sorted(RESULTS.glob("*.json")), op))
        return
    entries = json.loads(path.read_text())
    rows = [row for entry in entries for row in entry.get("rows", [])]
    if any({"seed", "settings"} <= row.keys() for row in rows):
        print(training_tables(rows))
        return
    print("\n\n".join(filter(None, (entry_table(entry, op) for entry in entries))))
    if lines := [f"- {text}: {value} ({'met' if is_met else 'missed'})" for text, value, is_met in targets(rows)]:
        print("\n" + "\n".join(lines))


# --------------------------------------------------------------------------------------- summary of all files


@dataclass(frozen=True)
class Line:
    """One line of the summary."""

    op: str
    cells: tuple[str, ...]  # one per column


def summary(
    paths: Sequence[Path],
    ops: tuple[str, ...] = (),  # empty: all
) -> str:
    """One table per kind of benchmark. Raises ValueError for an op that no kind contains."""
    lines = [line for path in paths for line in read_lines(path) if not ops or line.op in ops]
    if unknown := {line.op for line in lines} - {op for kind in KINDS.values() for op in kind}:
        raise ValueError(f"no table for {', '.join(sorted(unknown))}: add it to KINDS")
    parts = []
    for title, kind in KINDS.items():
        if rows := [line.cells for op in kind for line in lines if line.op == op]:
            parts.append(f"## {title}\n\n{NOTES.get(title, NOTE)}\n\n{_table(COLUMNS, rows)}")
    return "\n\n".join(parts)


def pages() -> dict[str, str]:
    """The tables of each page in docs/, from all committed results."""
    entries = [entry for path in sorted(TRAINING.glob("*.json")) for entry in json.loads(path.read_text())]
    rows = [row for entry in entries for row in entry["rows"]]
    return {"benchmarks.md": summary(sorted(RESULTS.glob("*.json"))), "families.md": training_tables(rows)}


def with_tables(
    text: str,  # of a page
    tables: str,
) -> str:
    """Replace what is between the two marks."""
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{START}\n{tables}\n\n{end}{after}" if tables else f"{before}{START}\n{end}{after}"


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of one results file, in any of its formats."""
    content = json.loads(path.read_text())
    if isinstance(content, dict):
        yield from _editing_lines(path, content)
        return
    for entry in content:
        yield from _first_format_lines(path, entry) if "table" in entry else _lines(path, entry)


def _lines(path: Path, entry: dict) -> Iterator[Line]:
    facts = _facts(path, entry.get("command"), entry["machine"])
    for row in entry["rows"]:
        what = row["case"] if row["dtype"] in ("float32", "uint8") else f"{row['case']}, {row['dtype']}"
        results = {name: f"{ratio:.2f}x" for name, ratio in row.get("ratio", {}).items()}
        results |= dict.fromkeys(row["wrong"], "wrong result") | dict.fromkeys(row["failed"], "failed")
        for name, result in results.items():
            yield Line(row["op"], (_current_terms(what), ALTERNATIVES.get(name, name), result, *facts))


def _first_format_lines(path: Path, entry: dict) -> Iterator[Line]:
    """Lines of the first format, which did not record command and date."""
    script = "synthesis" if entry["title"].startswith("synthesis") else "train_step"
    size, batch = re.search(r"(\d+)x\d+.*batch (\d+)", entry["title"]).groups()
    facts = _facts(path, f"python benchmarks/bench_{script}.py --size {size} --batch {batch}", entry["machine"])
    for name, row in list(entry["table"].items())[1:]:
        yield Line(script, (entry["title"].removesuffix(", cpu"), name, f"{row['ratio']:.2f}x", *facts))


def _editing_lines(path: Path, content: dict) -> Iterator[Line]:
    """Means over all directions of what measure_editing.py writes, which does not record the machine."""
    facts = _facts(path, "python benchmarks/measure_editing.py", {"device": path.stem.split("-")[3]})
    measures = {"moved": "images where the attribute changed", "kept": "other attributes that stayed the same"}
    for name, measure in measures.items():
        ours, others = (statistics.fmean(row[key] for row in content["rows"]) for key in (name, f"random {name}"))
        what = f"{measure}, mean of {len(content['rows'])} directions: {ours:.0%}"
        yield Line("editing", (what, f"random directions: {others:.0%}", f"{ours / others:.2f}x", *facts))


def _facts(path: Path, command: str | None, machine: dict) -> tuple[str, ...]:
    """Cells for device, versions, command and date."""
    details = [machine.get("processor") if machine["device"] == "cpu" else None]
    if machine["device"] == "cpu" and "threads" in machine:
        details.append(f"{machine['threads']} thread" + ("s" if machine["threads"] > 1 else ""))
    device = machine["device"] + (f" ({', '.join(filter(None, details))})" if any(details) else "")
    names = {"torch": "PyTorch", "cuda": "CUDA", "driver": "driver", "python": "Python"}
    versions = ", ".join(f"{name} {machine[key]}" for key, name in names.items() if machine.get(key))
    return device, versions or "not recorded", f"`{command}`", machine.get("date", path.stem)[:10]


def _current_terms(text: str) -> str:
    for old, new in _TERMS.items():
        text = text.replace(old, new)
    return text


# ---------------------------------------------------------------------------------------------- one file


def entry_table(
    entry: dict,  # of a results file
    ops: tuple[str, ...] = (),  # empty: all
) -> str:
    """A table of one run of a benchmark; empty without matching rows."""
    if "table" in entry:  # first format
        first, *others = entry["table"].items()
        header = ["case", "ours", *(name for name, _ in others)]
        rows = [[entry["title"], _time(first[1]["seconds"]), *(f"{row['ratio']:.2f}x" for _, row in others)]]
        return _table(header, rows)
    selected = [row for row in entry["rows"] if not ops or row["op"] in ops]
    others = list(dict.fromkeys(name for row in selected for name in row.get("ratio", ())))
    extra = [name for name, key in _EXTRA.items() if any(key in row for row in selected)]
    header = ["case", "type", "ours", *extra, *(f"{name} / ours" for name in others)]
    rows = [_cells(row, extra, others) for row in selected]
    return f"{describe(entry)}\n\n{_table(header, rows)}" if rows else ""


def describe(entry: dict) -> str:
    """Command, machine and ceilings of a run."""
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
    ratios = [f"{row['ratio'][name]:.2f}x" if name in row["ratio"] else _outcome(row, name) for name in others]
    return [row["case"], row["dtype"], _time(row["ours"]), *(facts[name] for name in extra), *ratios]


def _outcome(row: dict, name: str) -> str:
    return "wrong" if name in row["wrong"] else "failed" if name in row["failed"] else ""


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g} us"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
