"""`sgan generate` from start to end, in turn with another checkout of this repository.

python benchmarks/bench_generate.py --before ../before
python benchmarks/bench_generate.py --before ../before --seeds 0-31 --model model.safetensors --batch 8

The clock is the processor time of the whole process, with one OpenMP thread; wall time is printed beside it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from _harness import Bench, benchmark


@click.command()
@click.option("--before", type=click.Path(path_type=Path), required=True, help="The other checkout.")
@click.option("--seeds", default="0-255", show_default=True)
@click.option("--model", help="Model. Default: the bundled one.")
@click.option("--batch", help="Images at a time. Default: chosen by image size.")
@benchmark
def main(bench: Bench, before: Path, seeds: str, model: str | None, batch: str | None) -> None:
    trees = {"ours": Path(__file__).parents[1], "before": before.resolve()}
    command = ["generate", "-q", "--outdir", "out", "--seeds", seeds, "--device", str(bench.device)]
    command += [*(["--model", model] if model else []), *(["--batch", batch] if batch else [])]
    processor, wall = in_turn(trees, command, bench.rounds)
    seconds = {name: statistics.median(ts) for name, ts in processor.items()}
    ratio = statistics.median(b / o for b, o in zip(processor["before"], processor["ours"], strict=True))
    wall_ratio = statistics.median(b / o for b, o in zip(wall["before"], wall["ours"], strict=True))
    bench.add(
        {
            "op": "generate",
            "dtype": "float32",
            "first": "ours",
            "case": f"sgan generate --seeds {seeds}, {Path(model).stem if model else 'bundled model'}"
            + (f", batch {batch}" if batch else ""),
            "seconds": seconds,
            "rounds": processor,
            "wall": wall,
            "ours": seconds["ours"],
            "ratio": {"before": ratio},
            "wrong": [],
            "failed": {},
        }
    )
    print(f"  wall time {statistics.median(wall['ours']):.2f} s, before {wall_ratio:.2f}x")


def in_turn(
    trees: dict[str, Path],  # name -> a checkout
    command: list[str],  # of sgan
    rounds: int,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:  # by name: seconds of the processor, and of the clock
    """Run a command from start to end, in an empty folder of its own."""
    processor, wall = ({name: [] for name in trees} for _ in range(2))
    for k in range(rounds + 1):
        for name, tree in trees.items():
            used, passed = run(tree, command)
            if k:  # the first run fills the caches of files
                processor[name].append(used)
                wall[name].append(passed)
    return processor, wall


def run(tree: Path, words: list[str]) -> tuple[float, float]:  # seconds of the processor, and of the clock
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stylegan_cli", *words]
        before, start = processor_seconds(), time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return processor_seconds() - before, time.perf_counter() - start


def processor_seconds() -> float:
    """Of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
