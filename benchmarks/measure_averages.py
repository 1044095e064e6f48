"""How long the moving average of the generator should be: one run, several averages of it, measured on the way.

python benchmarks/measure_averages.py --out benchmarks/results/training/2026-11-28-averages.json
python benchmarks/measure_averages.py --variant r1-every-4 --data critters --kimg 40 --kimg 50 --out ...

The half-life of an average is a fraction of the images shown so far (`ema_rampup`). All averages of a variant are of
the same runs, so that chance differs little between them; and runs end by their images, which other processes on the
machine do not change.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import torch
from _datasets import DATASETS
from _rows import Row
from _training import Options, Run, make_config, measure_model, script_options
from _training_tables import BASELINE, averages_table
from measure_recipes import preset_of, settings_of

from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.training.ema import EMA
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.gan import Gan, make_engine

FRACTIONS = (0.005, 0.01, 0.02, 0.05, 0.1)


@click.command()
@click.option("--variant", "variants", multiple=True, default=(BASELINE,), help="Of measure_recipes.py, joined by '+'.")
@click.option("--data", multiple=True, type=click.Choice(list(DATASETS)), help="Datasets. Default: all.")
@click.option("--seeds", default=2, show_default=True, help="Runs of each variant on each dataset.")
@click.option("--kimg", "stops", multiple=True, type=float, default=(25.0, 50.0), show_default=True, help="When.")
@script_options
def main(options: Options, variants: Sequence[str], data: Sequence[str], seeds: int, stops: Sequence[float]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    stops = sorted(stops)
    for seed in range(seeds):
        for variant in variants:
            for name in data or DATASETS:
                work_on({(stop, f): as_run(variant, name, seed, stop, f) for stop in stops for f in FRACTIONS}, options)
    print(averages_table(options.rows.all()))


def as_run(variant: str, data: str, seed: int, kimg: float, fraction: float) -> Run:
    case, settings = f"{variant}, {fraction:g}, {kimg:g} kimg", settings_of(variant) | {"ema_rampup": fraction}
    return Run("averages", case, preset_of(variant), data, seed, 0.0, settings)


def work_on(
    runs: dict[tuple[float, float], Run],  # by kimg, ascending, and fraction, of one training
    options: Options,
) -> None:
    """Train once, and measure every average at each stop, unless all are measured or another process does it."""
    missing = [run for run in runs.values() if options.rows.find(run.row(options.num)) is None]
    missing = [run for run in missing if options.only in run.case]
    if options.plan:
        print("".join(f"{run.name}\n" for run in missing), end="")
        return
    if not missing:
        return
    with options.rows.claim(missing[-1].row(options.num)) as is_free:
        if is_free:
            follow({key: run for key, run in runs.items() if run in missing}, options)


def follow(runs: dict[tuple[float, float], Run], options: Options) -> None:
    any_run = next(iter(runs.values()))
    parts = options.parts(any_run.data)
    engine = make_engine(make_config(any_run, parts.train.spec), parts.train)
    averages = {fraction: EMA(engine.recipe.G, float("inf"), fraction) for _, fraction in runs}
    try:
        for (kimg, fraction), run in runs.items():
            train(engine, list(averages.values()), kimg)
            options.rows.add(measured(run, engine, averages[fraction], options))
    finally:
        engine.close()


def train(engine: Engine[Gan], averages: Sequence[EMA], kimg: float) -> None:
    while engine.shown < kimg * 1000:
        shown = engine.shown
        engine.step()
        for average in averages:
            average.update(engine.recipe.G, shown, engine.recipe.batch)


def measured(run: Run, engine: Engine[Gan], average: EMA, options: Options) -> Row:
    figures = measure_model(run, average.network, options.parts(run.data), options)  # pyright: ignore[reportArgumentType]
    print(f"{run.name}: {figures}", flush=True)
    rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
    return run.row(options.num) | {"kimg": engine.shown / 1000, "figures": rounded, "failed": []}


if __name__ == "__main__":
    main()
