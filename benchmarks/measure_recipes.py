"""A search for a better recipe of the preset demo-stylegan2: what to change so that the same time gives better images.

python benchmarks/measure_recipes.py --out benchmarks/results/training/2026-11-28-recipes.json
python benchmarks/measure_recipes.py --stage finals --finalist relativistic-3 --out ...

Three stages. `screening` trains each single change for four minutes on critters. `combining` starts with the best one,
and adds the others that helped in the order of their gain, each if it helps again. `finals` trains the baseline, the
best combination and the best single changes for sixteen minutes on three datasets with three seeds. A recipe replaces
the baseline if both of its distances are smaller on all datasets by more than two standard errors of the difference.
The time is that of one thread. The committed rows were steered by hand, with other lengths: see docs/families.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import click
from _datasets import DATASETS
from _training import LOGISTIC, Options, Run, is_known, script_options, work_on
from _training_tables import BASELINE, RULE, finals_table, grouped, mean, screening_table

PRESET = "demo-stylegan2"
STAGES = ("screening", "combining", "finals")
SCREENED_ON = "critters"


def _relativistic(gamma: float, interval: int = 16) -> dict[str, Any]:
    """Pairs of real and generated images, with a penalty on both (Huang et al. 2024)."""
    changes = {"loss": "relativistic", "gamma": gamma, "r2_gamma": gamma}
    return changes if interval == 16 else changes | {"r1_interval": interval}


_BY_TIME = {"schedule_kimg": 0.0, "schedule.lr": 0.25, "schedule.gamma": 0.1}  # instead of by the images shown
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "relativistic-0.3": _relativistic(0.3),
    "relativistic-1": _relativistic(1.0),
    "relativistic-3": _relativistic(3.0),
    "relativistic-10": _relativistic(10.0),
    "relativistic-30": _relativistic(30.0),
    "relativistic-1-every-4": _relativistic(1.0, 4),
    "relativistic-10-every-4": _relativistic(10.0, 4),
    "relativistic-3-every-1": _relativistic(3.0, 1),
    "r2": {"gamma": 15.0, "r2_gamma": 15.0},
    "gamma-10": {"gamma": 10.0},
    "gamma-3": {"gamma": 3.0},
    "gamma-90": {"gamma": 90.0},
    "r1-every-2": {"r1_interval": 2},
    "r1-every-1": {"r1_interval": 1},
    "r1-every-4": {"r1_interval": 4},
    "r1-every-8": {"r1_interval": 8},
    "hinge": {"loss": "hinge"},
    "no-mixing": {"mixing_prob": 0.0},
    "path-length": {"pl_weight": 2.0},
    "deviation-1": {"mbstd_channels": 1},
    "no-deviation": {"mbstd_channels": 0},
    "lr-0.003": {"lr": 0.003},
    "lr-0.004": {"lr": 0.004},
    "lr-0.009": {"lr": 0.009},
    "lr-0.012": {"lr": 0.012},
    "d-lr-0.004": {"lr": 0.006, "d_lr": 0.004},
    "d-lr-0.009": {"lr": 0.006, "d_lr": 0.009},
    "d-lr-0.012": {"lr": 0.006, "d_lr": 0.012},
    "d-lr-0.003": {"lr": 0.006, "d_lr": 0.003},
    "g-lr-0.003": {"lr": 0.003, "d_lr": 0.006},
    "g-lr-0.012": {"lr": 0.012, "d_lr": 0.006},
    "cosine-lr": {"schedule.lr": 0.1},
    "cosine-gamma": {"schedule.gamma": 0.1},
    "cosine-both": {"schedule.lr": 0.1, "schedule.gamma": 0.1},
    "batch-4": {"batch": 4},
    "batch-8": {"batch": 8},
    "batch-32": {"batch": 32},
    "ema-1": {"ema_kimg": 1.0},
    "ema-10": {"ema_kimg": 10.0},
    "short-ema": {"ema_rampup": 0.02},
    "momentum-0.5": {"betas": (0.5, 0.99)},
    "both-half": {"channel_base": 256, "channel_max": 64},
    "at-most-64": {"channel_max": 64},
    "both-wider": {"channel_base": 768, "channel_max": 192},
    "d-wider": {"discriminator.channel_base": 1024, "discriminator.channel_max": 256},
    "d-half": {"discriminator.channel_base": 256, "discriminator.channel_max": 64},
    "g-wider": {"generator.channel_base": 1024, "generator.channel_max": 256},
    "g-half": {"generator.channel_base": 256, "generator.channel_max": 64},
    "d-skip": {"discriminator.architecture": "skip"},
    "d-orig": {"discriminator.architecture": "orig"},
    "g-resnet": {"generator.architecture": "resnet"},
    "g-orig": {"generator.architecture": "orig"},
    "mapping-4": {"mapping_layers": 4},
    "mapping-lr-0.3": {"mapping_lr": 0.3},
    "mapping-lr-0.01": {"mapping_lr": 0.01},
    "diffaug": {"aug": "diffaug"},
    "blur": {"blur_sigma": 2.0},
    # Of another family, with its own settings.
    "style-r3gan": {"cfg": "demo", **_BY_TIME},
}


@click.command()
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), help="Default: all.")
@click.option(
    "--variant", "screened", multiple=True, help="Of the screening, or several joined by '+'. Default: all single ones."
)
@click.option(
    "--finalist", "chosen", multiple=True, help="A variant, or several joined by '+'. Default: the best ones."
)
@click.option("--best", default=3, show_default=True, help="Single changes that reach the finals.")
@click.option("--data", multiple=True, type=click.Choice(list(DATASETS)), help="Datasets of the finals. Default: all.")
@click.option("--screening-seeds", default=1, show_default=True, help="Runs of each variant before the finals.")
@click.option("--screening-seconds", default=240.0, show_default=True, help="Length of a run before the finals.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each finalist on each dataset.")
@click.option("--seconds", default=960.0, show_default=True, help="Length of a run of the finals.")
@script_options
def main(
    options: Options,
    stages: tuple[str, ...],
    screened: tuple[str, ...],
    chosen: tuple[str, ...],
    best: int,
    data: tuple[str, ...],
    screening_seeds: int,
    screening_seconds: float,
    seeds: int,
    seconds: float,
) -> None:
    trials = [(seed, screening_seconds) for seed in range(screening_seeds)]
    if "screening" in (stages or STAGES):
        work_on(screening_runs(screened or VARIANTS, trials), options)
    if "combining" in (stages or STAGES) and not options.plan:
        combine(trials, options)
    if "finals" in (stages or STAGES):
        names = [BASELINE, *(chosen or finalists(ranking(trials, options), best))]
        work_on(final_runs(names, data or tuple(DATASETS), seeds, seconds), options)
    rows = options.rows.all()
    print("\n\n".join(filter(None, [screening_table(rows), finals_table(rows), RULE])))


def screening_runs(names: Iterable[str], trials: list[tuple[int, float]]) -> list[Run]:
    """All variants with the first seed, then with the next one; without those that this version cannot train."""
    runs = [
        Run("screening", name, preset_of(name), SCREENED_ON, seed, seconds, settings_of(name))
        for seed, seconds in trials
        for name in names
    ]
    return [run for run in runs if is_known(run)]


def final_runs(names: Iterable[str], data: tuple[str, ...], seeds: int, seconds: float) -> list[Run]:
    names = list(dict.fromkeys(names))
    return [
        Run("finals", name, preset_of(name), where, seed, seconds, settings_of(name))
        for seed in range(seeds)
        for where in data
        for name in names
    ]


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a variant, or of several joined by '+': those of the baseline, or of another preset."""
    changes = {key: value for key, value in changes_of(name).items() if key != "cfg"}
    return LOGISTIC | changes if preset_of(name) == PRESET else changes


def preset_of(name: str) -> str:
    return changes_of(name).get("cfg", PRESET)


def changes_of(name: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for part in name.split("+"):
        if part not in VARIANTS:
            raise click.UsageError(f"There is no variant {part!r}. Choose from {', '.join(VARIANTS)}.")
        changes |= VARIANTS[part]
    return changes


def combine(trials: list[tuple[int, float]], options: Options) -> None:
    """Add changes that helped on their own to the best one, in the order of their gain, and keep those that help."""
    candidates = helpful(ranking(trials, options))
    together = candidates[0] if candidates else None
    for name in candidates[1:]:
        assert together is not None
        if changes_of(together).keys() & changes_of(name).keys():
            continue
        work_on(screening_runs([f"{together}+{name}"], trials), options)
        scores = ranking(trials, options)
        if scores.get(f"{together}+{name}", math.inf) < scores[together]:
            together = f"{together}+{name}"


def finalists(scores: dict[str, float], best: int) -> list[str]:
    """The best single changes, and the best combination."""
    together = next((name for name in scores if "+" in name), None)
    return [*helpful(scores)[:best], *([together] if together else [])]


def helpful(scores: dict[str, float]) -> list[str]:
    """The single changes that were better than the baseline, the best first."""
    return [name for name, score in scores.items() if "+" not in name and score < scores.get(BASELINE, 0)]


def ranking(trials: list[tuple[int, float]], options: Options) -> dict[str, float]:
    """The mean Fréchet distance of each variant of the screening over runs that can be compared, the smallest first."""
    comparable = [
        row
        for row in options.rows.all()
        if row["op"] == "screening" and (row["seed"], row["seconds"]) in trials and row["images"][2] == options.num
    ]
    screened = grouped(comparable, "case")
    return dict(sorted(((case, mean(runs, "frechet")) for (case,), runs in screened.items()), key=lambda pair: pair[1]))


if __name__ == "__main__":
    main()
