"""The time that progressive growing saves: each stage of a run compared with training at full size.

python benchmarks/bench_growth.py
python benchmarks/bench_growth.py --cfg stylegan --data faces.zip --images 512

The ratio of the last row is the time that training at full size would take up to the start of the last level, over the
time that growing takes.
"""

from __future__ import annotations

import dataclasses
import statistics

import click
from _harness import Bench, Run, benchmark, compare

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.growth import Growth
from stylegan_cli.training.presets import PRESETS, make_train_config
from stylegan_cli.training.recipes.gan import make_engine


@click.command()
@click.option("--cfg", type=click.Choice(list(PRESETS)), default="demo-stylegan", show_default=True)
@click.option("--data", help="Dataset. Default: the bundled one.")
@click.option("--size", type=int, help="Image size. Default: from the preset.")
@click.option("--images", default=1024, show_default=True, help="Number of images per measurement.")
@benchmark
def main(bench: Bench, cfg: str, data: str | None, size: int | None, images: int) -> None:
    size = size or PRESETS[cfg].size
    dataset = open_dataset(data, size=(size, size) if size else None)
    config = make_train_config(cfg, dataset.spec, kimg=1e9)
    growth = Growth(config)
    engines = [make_engine(dataclasses.replace(s.config, growth=None), dataset, bench.device) for s in growth.stages]
    full = make_engine(dataclasses.replace(config, growth=None), dataset, bench.device)
    runs = {f"stage {i}": train(engine, images) for i, engine in enumerate(engines)}
    times = compare({"full size": train(full, images), **runs}, bench.device, sets=1, rounds=bench.rounds, ahead=False)
    for engine in (*engines, full):
        engine.close()
    add_rows(bench, cfg, growth, {name: [t / images * 1000 for t in ts] for name, ts in times.items()})


def train(engine: Engine, images: int) -> Run:
    """Training steps with this many images, with regularization at its usual intervals."""

    def run(_: int) -> None:
        for _ in range(max(images // engine.recipe.batch, 1)):
            engine.step()

    return run


def add_rows(
    bench: Bench,
    cfg: str,
    growth: Growth,
    times: dict[str, list[float]],  # seconds per thousand images, by round
) -> None:
    row = {"op": "growth", "dtype": "float32", "first": "growing", "wrong": [], "failed": {}}
    for i, stage in enumerate(growth.stages):
        phase = "fading in" if stage.config.generator.fade else "stabilizing"
        others = {"full size": statistics.median(a / b for a, b in zip(times["full size"], times[f"stage {i}"]))}
        seconds = {
            "growing": statistics.median(times[f"stage {i}"]),
            "full size": statistics.median(times["full size"]),
        }
        case = f"{cfg}, a thousand images, {stage.config.data.height}x{stage.config.data.width} {phase}"
        bench.add({**row, "case": case, "seconds": seconds, "ours": seconds["growing"], "ratio": others})
    before = [(i, s) for i, s in enumerate(growth.stages) if s.level < growth.levels[-1]]
    kimg = sum(s.length for _, s in before) / 1000
    rounds = range(len(times["full size"]))
    grown = [sum(times[f"stage {i}"][r] * s.length / 1000 for i, s in before) for r in rounds]
    whole = [times["full size"][r] * kimg for r in rounds]
    seconds = {"growing": statistics.median(grown), "full size": statistics.median(whole)}
    others = {"full size": statistics.median(f / g for f, g in zip(whole, grown))}
    case = f"{cfg}, the {kimg:g} kimg before the last level"
    bench.add({**row, "case": case, "seconds": seconds, "ours": seconds["growing"], "ratio": others})


if __name__ == "__main__":
    main()
