"""Steps of training as `sgan train` runs them: the data, all phases at their intervals, the moving average.

python benchmarks/bench_trainer.py --size 64 --steps 16
python benchmarks/bench_trainer.py --peer ../stylegan3

'eager' is without CUDA graphs. The peer runs its phases at the same intervals on images that are on the device already,
without a moving average.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import _peer
import click
import torch
from _harness import Bench, Run, benchmark, compare
from bench_metrics import random_dataset

from stylegan_cli.ops import use
from stylegan_cli.training.config import TrainConfig
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import make_engine


@click.command()
@click.option("--size", type=int, help="Image size. Default: 256, or 64 on a CPU.")
@click.option("--batch", type=int, help="Default: 16, or 4 on a CPU.")
@click.option("--channel-base", type=int, help="Default: 16384, or 32768 from 512 pixels up.")
@click.option("--steps", default=16, show_default=True, help="Steps of one measurement: all phases run in 16.")
@benchmark
def main(bench: Bench, size: int | None, batch: int | None, channel_base: int | None, steps: int) -> None:
    size, batch = size or (256 if bench.cuda else 64), batch or (16 if bench.cuda else 4)
    with tempfile.TemporaryDirectory() as folder:
        dataset = random_dataset(Path(folder), 4 * batch, size, 0)
        config = make_train_config("auto", dataset.spec, batch=batch, channel_base=channel_base, aug="noaug")
        config = dataclasses.replace(config, precision="fp16" if bench.cuda else "fp32")
        engines = {"ours": make_engine(config, dataset, bench.device, graphs=bench.cuda)}
        engines["eager" if bench.cuda else "reference"] = make_engine(config, dataset, bench.device)
        runs = {name: repeated(engine.step, steps) for name, engine in engines.items()}
        if not bench.cuda:
            runs["reference"] = use("reference")(runs["reference"])
        if bench.peer and not bench.no_peer:
            for name, channels_last in _peer.LAYOUTS.items():
                runs[name] = repeated(peer_step(bench, config, channels_last), steps)
        add_row(
            bench, f"training {size}x{size}, base {config.generator.channel_base}, batch {batch}", runs, config, steps
        )
        for engine in engines.values():
            engine.close()


def repeated(step: Callable[[], object], steps: int) -> Run:
    def run(_: int) -> None:
        for _ in range(steps):
            step()

    return run


def peer_step(bench: Bench, config: TrainConfig, channels_last: bool) -> Callable[[], object]:
    images = torch.randn(config.batch, 3, config.data.height, config.data.width, device=bench.device)
    phases = _peer.training_phases(bench.peer, config, config.precision == "fp16", images, channels_last)
    intervals = {"G path length": config.pl_interval, "D R1": config.r1_interval}
    done = [0]

    def step() -> None:
        for name, phase in phases.items():
            if done[0] % intervals.get(name, 1) == 0:
                phase(0)
        done[0] += 1

    return step


def add_row(bench: Bench, case: str, runs: dict[str, Run], config: TrainConfig, steps: int) -> None:
    for run in runs.values():  # algorithms are selected, graphs captured
        run(0)
    times = compare(runs, bench.device, sets=1, rounds=bench.rounds, ahead=False)
    seconds = {name: statistics.median(ts) / steps for name, ts in times.items()}
    ratio = {name: statistics.median(t / o for t, o in zip(ts, times["ours"])) for name, ts in times.items()}
    row = {"case": case, "op": "trainer", "size": config.data.height, "batch": config.batch, "dtype": config.precision}
    row |= {"first": "ours", "wrong": [], "failed": {}, "error": {}, "seconds": seconds, "ours": seconds["ours"]}
    per_kimg = {name: value * 1000 / config.batch for name, value in seconds.items()}
    others = {name: value for name, value in ratio.items() if name != "ours"}
    bench.add({**row, "ratio": others, "seconds_per_kimg": per_kimg})


if __name__ == "__main__":
    main()
