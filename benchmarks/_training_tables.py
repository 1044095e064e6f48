"""Markdown tables of training runs: means over seeds, with their standard deviation."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from _ablations import ABLATIONS
from _datasets import DATASETS
from _rows import Row

BASELINE = "baseline"
DISTANCES = ("frechet", "kernel")
RULE = (
    "A variant is better than the baseline on a dataset if the means of both distances, over the same three seeds or "
    "more, are smaller by more than two standard errors of their difference. It becomes the default if it is better on "
    "all datasets; `demo` is an exception, see [the decision](#what-the-search-has-shown). In brackets is the number "
    "of seeds, where it is not three."
)
FAMILIES_NOTE = (
    "A small network of each family. Only the settings of StyleGAN2 were searched for, and in a few runs those of "
    "StyleR3GAN. The learning rates of DCGAN, SNGAN, SAGAN and BigGAN are three times the published ones, which were "
    "too slow, that of R3GAN is ten times the published one, without augmentation; other settings were set once. "
    "BigGAN has no classes here."
)
AVERAGES_NOTE = (
    "Fréchet distance of moving averages of the same runs, and in brackets its ratio to that of a tenth. The "
    "half-life is a fraction of the images shown so far."
)
ABLATION_NOTE = (
    "The published figures of the StyleGANs are of networks 40 to 70 times as large, trained for days on "
    "photographs of 256 x 256 to 1024 x 1024 pixels. Only the order of the rows can be compared. Those of "
    "objectives are how many of 1,000 modes other networks find in another dataset (more is better); ours are "
    "distances (less is better). Path length (w, by LPIPS; lower is smoother), EQ-T and EQ-R (dB; higher is better) "
    "are of a quarter of the images."
)
_FORMATS: dict[str, Callable[[float], str]] = {
    "frechet": lambda x: f"{x:.1f}",
    "kernel": lambda x: f"{1000 * x:.1f}".replace("-0.0", "0.0"),
    "diversity": lambda x: f"{x:.2f}",
    "kimg": lambda x: f"{x:.0f}",
}
_TITLES = {"frechet": "Fréchet", "kernel": "kernel, 10⁻³", "ppl": "path length", "eqt": "EQ-T", "eqr": "EQ-R"}


def training_tables(rows: Sequence[Row]) -> str:
    """All tables that have rows, with headings."""
    note = "Single changes of the preset `demo-stylegan2`, and combinations of those that helped."
    recipes = (
        ("### Screening", note, screening_table(rows)),
        ("### Finals", RULE, finals_table(rows)),
        ("### Moving average", AVERAGES_NOTE, averages_table(rows)),
    )
    ablations = (ablation_table(name, rows) for name in ABLATIONS if any(row["op"] == name for row in rows))
    parts = (
        ("## Families", FAMILIES_NOTE, families_table(rows)),
        ("## Recipes", "", _sections(recipes)),
        ("## Ablations", ABLATION_NOTE, "\n\n".join(ablations)),
    )
    return _sections(parts)


def _sections(
    parts: Iterable[tuple[str, str, str]],  # heading, note, tables
) -> str:
    return "\n\n".join("\n\n".join(filter(None, part)) for part in parts if part[2])


def families_table(rows: Sequence[Row]) -> str:
    """One table for each dataset and length of the runs: a line per family, the best first."""
    figures = ("kimg", "Fréchet", "kernel, 10⁻³", "diversity")
    header = ("family", "preset", "precision", "parameters of G, D", *figures, "seeds", "settings")
    parts, ours = [], [row for row in rows if row["op"] == "families"]
    references = {row["data"]: row for row in ours if not row["settings"]["cfg"]}
    for (data, seconds), group in grouped([row for row in ours if row["settings"]["cfg"]], "data", "seconds").items():
        lines = []
        for runs in sorted(grouped(group, "case").values(), key=lambda runs: mean(runs, "frechet")):
            first, cfg = runs[0], runs[0]["settings"]["cfg"]
            start = (first["case"], f"`{cfg}`", first.get("precision", ""), sizes(runs))
            lines.append((*start, *figure_cells(runs), str(len(runs)), changes(first, {"cfg": cfg})))
        if reference := references.get(data):
            lines.insert(0, (reference["case"], *[""] * 4, *figure_cells([reference])[1:], "", ""))
        parts.append(f"{data}, {seconds:g} seconds of one thread:\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def screening_table(rows: Sequence[Row]) -> str:
    """Each variant of the recipe, the best first, with what it changes."""
    header = ("variant", "settings", "kimg", "Fréchet", "kernel, 10⁻³", "diversity", "seeds")
    parts, screened = [], [row for row in rows if row["op"] == "screening"]
    base = next((row["settings"] for row in rows if row["case"] == BASELINE), {})
    for (data, seconds), group in sorted(grouped(screened, "data", "seconds").items(), key=lambda pair: pair[0]):
        ranked = sorted(grouped(group, "case").values(), key=lambda runs: mean(runs, "frechet"))
        lines = [(runs[0]["case"], changes(runs[0], base), *figure_cells(runs), str(len(runs))) for runs in ranked]
        parts.append(f"{data}, {seconds:g} seconds of one thread:\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def finals_table(rows: Sequence[Row]) -> str:
    """The distances of each finalist on each dataset, and whether it is better than the baseline on all of them."""
    finals = [row for row in rows if row["op"] == "finals"]
    parts = []
    for (seconds,), group in sorted(grouped(finals, "seconds").items(), key=lambda pair: pair[0]):
        names = sorted({row["data"] for row in group})
        header = (
            "variant",
            *(f"{name}, {figure}" for name in names for figure in ("kimg", "Fréchet", "kernel, 10⁻³")),
            "better",
        )
        lines = []
        for case, runs in grouped(group, "case").items():
            by_data = {name: [row for row in runs if row["data"] == name] for name in names}
            cells = (x for name in names for x in final_cells(by_data[name]))
            lines.append((case[0], *cells, "" if case[0] == BASELINE else verdict(group, case[0], names)))
        parts.append(f"{seconds:g} seconds of one thread:\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def final_cells(runs: Sequence[Row]) -> tuple[str, str, str]:
    """Thousands of images, and both distances, with the number of seeds where it is not three."""
    kimg, frechet, kernel = (cell(runs, figure) for figure in ("kimg", *DISTANCES))
    return kimg, f"{frechet} ({len(runs)})" if len(runs) not in (0, 3) else frechet, kernel


def averages_table(rows: Sequence[Row]) -> str:
    """A line per variant and half-life, a column per dataset and length: the mean distance, its ratio to a tenth."""
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}  # line, column, seed
    for row in (row for row in rows if row["op"] == "averages"):
        variant, fraction, kimg = row["case"].split(", ")
        line = cells.setdefault((variant, fraction), {})
        line.setdefault(f"{row['data']}, {kimg}", {})[row["seed"]] = mean([row], "frechet")
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))

    def text(variant: str, fraction: str, column: str) -> str:
        ours, tenth = (cells.get((variant, name), {}).get(column, {}) for name in (fraction, "0.1"))
        ratios = [ours[seed] / tenth[seed] for seed in ours if seed in tenth]
        ratio = f" ({statistics.mean(ratios):.2f})" if ratios else ""
        return f"{statistics.mean(ours.values()):.1f}{ratio}" if ours else ""

    lines = [(*key, *(text(*key, column) for column in columns)) for key in sorted(cells)]
    return markdown(["variant", "half-life", *columns], lines) if lines else ""


def ablation_table(name: str, rows: Sequence[Row]) -> str:
    """The tables of a paper, with the published figures and ours: one for each dataset and length of the runs."""
    ablation, configurations = ABLATIONS[name], ABLATIONS[name].configurations
    figures = ("kimg", *DISTANCES, "diversity", *ablation.metrics)
    header = ("configuration", *ablation.columns, *(f"ours: {_TITLES.get(x, x)}" for x in figures), "note")
    measured = [row | {"num": row["images"][2]} for row in rows if row["op"] in ABLATIONS]
    wanted = [as_stored(row.run_settings) for row in configurations]
    parts = [f"### {ablation.title}"]
    for (data, seconds, num), group in grouped(measured, "data", "seconds", "num").items():
        lines = []
        for row, settings in zip(configurations, wanted, strict=True):
            runs = [run for run in group if run["settings"] == settings]  # of this table or another one
            published = row.published or ("",) * len(ablation.columns)
            lines.append((row.name, *published, *(cell(runs, figure) for figure in figures), row.note))
        if any(run["settings"] in wanted for run in group):
            caption = f"Ours: {seconds:g} seconds of one thread on {data}, {num:,} generated images."
            parts.append(f"{caption}\n\n{markdown(header, lines)}")
    return "\n\n".join(parts)


def as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are in a results file."""
    return json.loads(json.dumps(settings))


def verdict(rows: Sequence[Row], case: str, names: list[str]) -> str:
    """On which datasets a variant is better than the baseline by more than the noise of the seeds."""
    verdicts = {name: {is_better(rows, case, name, figure) for figure in DISTANCES} for name in names}
    if all(None in found for found in verdicts.values()):
        return "too few runs"
    won = [name for name, found in verdicts.items() if found == {True}]
    return "on all" if len(won) == len(DATASETS) else "on " + ", ".join(won) if won else "no"


def is_better(
    rows: Sequence[Row], case: str, data: str, figure: str
) -> bool | None:  # None: fewer than three common seeds
    """Whether the mean is lower by more than two standard errors of the difference of the means."""
    runs = [{r["seed"]: r for r in rows if (r["case"], r["data"]) == (name, data)} for name in (case, BASELINE)]
    common = runs[0].keys() & runs[1].keys()
    if len(common) < 3:
        return None
    ours, base = ([found[seed] for seed in common] for found in runs)
    if any(r["failed"] for r in (*ours, *base)):
        return False
    error = math.sqrt(sum(statistics.variance(values(runs, figure)) / len(runs) for runs in (ours, base)))
    return mean(base, figure) - mean(ours, figure) > 2 * error


# ------------------------------------------------------------------------------------------- parts


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple, list[Row]]:
    """Rows by the values of these fields, in the order of their first row."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def values(runs: Iterable[Row], figure: str) -> list[float]:
    """A figure of the runs that did not fail."""
    return [run["kimg"] if figure == "kimg" else run["figures"][figure] for run in runs if not run["failed"]]


def mean(runs: Sequence[Row], figure: str) -> float:
    """The mean over seeds; infinite if a run failed, so that it comes last."""
    return math.inf if any(run["failed"] for run in runs) else statistics.fmean(values(runs, figure))


def cell(runs: Sequence[Row], figure: str) -> str:
    """Mean and standard deviation over seeds."""
    if not runs:
        return ""
    runs = [run for run in runs if run["failed"] or figure == "kimg" or figure in run["figures"]]
    if not runs:
        return ""  # this network has no such figure
    found, show = values(runs, figure), _FORMATS.get(figure, lambda x: f"{x:.1f}")
    if len(found) < len(runs):
        return f"{len(runs) - len(found)} of {len(runs)} failed"
    spread = f" ± {show(statistics.stdev(found))}" if len(found) > 1 and figure != "kimg" else ""
    return show(statistics.fmean(found)) + spread


def figure_cells(runs: Sequence[Row]) -> list[str]:
    return [cell(runs, figure) for figure in ("kimg", *DISTANCES, "diversity")]


def sizes(runs: Sequence[Row]) -> str:
    """Parameters of both networks, in thousands."""
    counts = next((run["parameters"] for run in runs if run["parameters"]), {})
    return ", ".join(f"{count / 1000:.0f}k" for count in counts.values())


def changes(run: Row, base: Mapping[str, Any]) -> str:
    """The settings of a run that differ from those of the baseline."""
    pairs = {name: value for name, value in run["settings"].items() if value != base.get(name)}
    return ", ".join(f"`{name}` {value}" for name, value in pairs.items())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
