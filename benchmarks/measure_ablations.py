"""The ablations of the papers, trained for minutes at 32 x 32 pixels, beside the published figures.

python benchmarks/measure_ablations.py --seconds 240 --num 2000 --detector vgg16.ckpt \
    --out benchmarks/results/training/2026-11-28-ablations.json
python benchmarks/measure_ablations.py --table stylegan3 --only "T: " --seconds 60

A published FID and our Fréchet distance have nothing in common but the order of the lines, and even that need not be
the same: ours are small networks after a few minutes. Path lengths need the weights of LPIPS.
"""

from __future__ import annotations

import dataclasses

import click
from _ablations import ABLATIONS
from _datasets import DATASETS
from _training import Options, Run, is_known, script_options, work_on
from _training_tables import ablation_table, as_stored


@click.command()
@click.option("--table", "tables", multiple=True, type=click.Choice(list(ABLATIONS)), help="Default: all.")
@click.option("--data", default="critters", show_default=True, type=click.Choice(list(DATASETS)), help="Dataset.")
@click.option("--seeds", default=1, show_default=True, help="Number of runs of each configuration.")
@click.option("--seconds", default=480.0, show_default=True, help="Length of a run, in seconds of one thread.")
@script_options
def main(options: Options, tables: tuple[str, ...], data: str, seeds: int, seconds: float) -> None:
    names = tables or tuple(ABLATIONS)
    runs: dict[str, Run] = {}  # by seed and settings, which lines of two tables can share
    for seed in range(seeds):
        for name in names:
            for row in ABLATIONS[name].configurations:
                run = Run(name, row.name, row.cfg, data, seed, seconds, dict(row.settings), ABLATIONS[name].metrics)
                first = runs.setdefault(key := f"{seed} {as_stored(row.run_settings)}", run)
                runs[key] = dataclasses.replace(first, metrics=tuple(dict.fromkeys(first.metrics + run.metrics)))
    work_on([run for run in runs.values() if is_known(run)], options)
    print("\n\n".join(ablation_table(name, options.rows.all()) for name in names))


if __name__ == "__main__":
    main()
