"""Every family of generators at 32 x 32 pixels: what it learns of the bundled dataset in eight minutes.

python benchmarks/measure_families.py --out benchmarks/results/training/2026-11-28-families.json
python benchmarks/measure_families.py --preset demo-stylegan2 --preset progan --seeds 1 --seconds 60

The time is that of one thread, so that two runs can share two cores; a second thread makes a step of networks as small
as these 1.1 to 1.4 times as fast. What is measured is the moving average of the generator, at the end: 4,000 images
against 1,000 that no run has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from _datasets import DATASETS
from _training import GROWING, SMALL, Options, Run, generate, script_options, work_on
from _training_tables import families_table

from stylegan_cli.data.images import labeled_grid, save_image
from stylegan_cli.models.config import field_names
from stylegan_cli.models.registry import presets
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.presets import NETWORK_OPTIONS

# Line of the table -> its preset, and settings for this size.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ProGAN": ("progan", SMALL | GROWING | {"lr": 0.002}),
    "StyleGAN": ("demo-stylegan", {}),
    "StyleGAN2": ("demo-stylegan2", {}),
    "BiGAN": ("demo-stylegan2", {"encoder": "bigan"}),
    "VAE-GAN": ("demo-stylegan2", {"encoder": "vaegan"}),
    "StyleGAN3-T": ("demo-stylegan3", {}),
    "StyleGAN3-R": (
        "demo-stylegan3",
        {
            "generator.kernel": 1,
            "generator.radial": True,
            "generator.channel_base": 2048,
            "generator.channel_max": 128,
        },
    ),
    "StyleR3GAN": (
        "demo",
        {"schedule_kimg": 0.0, "schedule.lr": 0.25, "schedule.gamma": 0.1},  # by the time of the run
    ),
    "R3GAN": (
        "r3gan",
        {
            "batch": 16,
            "channel_base": 1024,
            "channel_max": 64,
            "gamma": 3.0,
            "lr": 0.002,
            "ema_kimg": 4.0,
            "ema_rampup": 0.1,
            "aug": "noaug",
            "schedule_kimg": 0.0,  # instead, by the time of the run:
            "schedule.lr": 0.25,
            "schedule.gamma": 0.1,
        },
    ),
}
# Learning rates below are three times those of the papers, which are for days of training.
_CLASSIC: dict[str, Any] = {"batch": 16, "channel_base": 1024, "channel_max": 64, "ema_kimg": 4.0, "ema_rampup": 0.1}
FAMILIES |= {
    "StackGAN": ("demo-stackgan", {"stage_kimg": 50.0}),  # its second stage for the last four fifths of the time
    "DCGAN": ("dcgan", _CLASSIC | {"lr": 6e-4}),
    "SNGAN": ("sngan", _CLASSIC | {"lr": 6e-4}),
    "SAGAN": ("sagan", _CLASSIC | {"lr": 3e-4, "d_lr": 1.2e-3}),
    "BigGAN": ("biggan", _CLASSIC | {"lr": 1.5e-4, "d_lr": 6e-4}),
}
REALS = "training images"  # the line that says what is attainable


@click.command()
@click.option(
    "--preset", "chosen", multiple=True, help="A preset, or a line of the table. Default: the smallest of every family."
)
@click.option("--data", default="critters", show_default=True, type=click.Choice(list(DATASETS)), help="Dataset.")
@click.option("--seeds", default=2, show_default=True, help="Number of runs of each family.")
@click.option("--seconds", default=480.0, show_default=True, help="Length of a run, in seconds of one thread.")
@click.option("--sheet", type=click.Path(path_type=Path), help="PNG with a row of images of each family's first run.")
@script_options
def main(options: Options, chosen: tuple[str, ...], data: str, seeds: int, seconds: float, sheet: Path | None) -> None:
    lines = every_family()
    cases = {case: lines.get(case) or (case, small(case)) for case in chosen or lines}
    runs = [Run("families", REALS, "", data, 0, 0.0)]
    for seed in range(seeds):
        runs += [Run("families", case, cfg, data, seed, seconds, own) for case, (cfg, own) in cases.items()]
    work_on(runs, options)
    if sheet:
        save_sheet([run for run in runs if run.cfg and run.seed == 0], options, sheet)
    print(families_table(options.rows.all()))


def save_sheet(runs: list[Run], options: Options, path: Path) -> None:
    """Six images of each run that is done, in the order of the table."""
    done = [(row, run) for run in runs if (row := options.rows.find(run.row(options.num))) and not row["failed"]]
    done.sort(key=lambda pair: pair[0]["figures"]["frechet"])
    images = [generate(load_snapshot(options.folder / "models" / f"{run.name}.safetensors").G, 6) for _, run in done]
    names = [run.case for _, run in done]
    save_image(labeled_grid(torch.stack(images), None, None, names, [""] * 6), path)


def every_family() -> dict[str, tuple[str, dict[str, Any]]]:
    """The table above, and the smallest preset of each other family: its demo, or the first one made small."""
    known, cases = {cfg for cfg, _ in FAMILIES.values()}, dict(FAMILIES)
    for title, names in by_family().items():
        if known.isdisjoint(names):
            name = next((name for name in names if name.startswith("demo")), names[0])
            cases[title] = (name, small(name))
    return cases


def by_family() -> dict[str, list[str]]:
    """The presets of each family, by its title."""
    titles: dict[str, list[str]] = {}
    for name, (family, _) in presets().items():
        titles.setdefault(family.title, []).append(name)
    return titles


def small(preset: str) -> dict[str, Any]:
    """Settings that make a preset as small as the demos, as far as its family has them."""
    if preset.startswith("demo") or preset not in presets():
        return {}
    family = presets()[preset][0]
    missing = NETWORK_OPTIONS.keys() - field_names(family.config)
    missing |= {"mbstd_group", "mbstd_channels"} - field_names(family.discriminator.config)
    return {name: value for name, value in SMALL.items() if name not in missing}


if __name__ == "__main__":
    main()
