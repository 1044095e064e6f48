"""A training step on an idle machine, and while other processes keep cores busy, for several OpenMP wait policies.

python benchmarks/bench_busy.py
python benchmarks/bench_busy.py --busy 0,1,2 --threads 2 --rounds 7

'ours' has the settings of `sgan train` (stylegan_cli/threads.py), 'default' those of OpenMP. Each candidate is a
process that trains the preset `demo-stylegan2`; they take turns. The clock is wall time, because waiting is what is
measured.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from _harness import Bench, benchmark
from _options import Numbers

from stylegan_cli.threads import BUSY, QUIET, available_cores


@click.command()
@click.option("--busy", type=Numbers(), default="0,1,2", show_default=True, help="Numbers of busy processes.")
@click.option(
    "--threads", type=int, default=available_cores(), show_default=True, help="Number of threads per candidate."
)
@click.option("--steps", default=16, show_default=True, help="Training steps per measurement.")
@benchmark
def main(bench: Bench, busy: tuple[int, ...], threads: int, steps: int) -> None:
    environment = {"OMP_NUM_THREADS": str(threads)}
    candidates = {
        "busy": environment | BUSY,
        "quiet": environment | QUIET,
        "default": environment,
        "passive": environment | {"OMP_WAIT_POLICY": "passive"},
        "one thread": {"OMP_NUM_THREADS": "1"},
    }
    with contextlib.ExitStack() as stack:
        trainers = {name: stack.enter_context(trainer(variables, steps)) for name, variables in candidates.items()}
        for number in busy:
            with busy_processes(number):
                times = measure(trainers, bench.rounds)
            # `sgan` chooses one of the two when it starts.
            times = {"ours": times.pop("busy" if number else "quiet"), **times}
            seconds = {name: statistics.median(ts) for name, ts in times.items()}
            ratio = {n: statistics.median(t / o for t, o in zip(ts, times["ours"])) for n, ts in times.items()}
            del ratio["ours"]
            bench.add(
                {
                    "op": "busy",
                    "dtype": "float32",
                    "first": "ours",
                    "case": f"training step, demo-stylegan2, {threads} threads, {number} busy processes",
                    "seconds": seconds,
                    "rounds": times,
                    "ours": seconds["ours"],
                    "ratio": ratio,
                    "wrong": [],
                    "failed": {},
                }
            )


def measure(trainers: dict[str, subprocess.Popen], rounds: int) -> dict[str, list[float]]:
    """Seconds per training step, one number per round, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for k in range(rounds + 1):
        for name, process in trainers.items():
            print(file=process.stdin, flush=True)
            seconds = float(process.stdout.readline())
            if k:
                times[name].append(seconds)
    return times


@contextlib.contextmanager
def trainer(environment: dict[str, str], steps: int) -> Iterator[subprocess.Popen]:
    """A process that runs some training steps for each line it receives, and prints the seconds per step."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-c", f"import bench_busy; bench_busy.serve({steps})"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        env=clean | environment | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def serve(steps: int) -> None:
    from stylegan_cli.data.dataset import open_dataset
    from stylegan_cli.training.presets import PRESETS, make_train_config
    from stylegan_cli.training.recipes.gan import make_engine

    size = PRESETS["demo-stylegan2"].size
    dataset = open_dataset(None, size=(size, size))
    engine = make_engine(make_train_config("demo-stylegan2", dataset.spec, kimg=1e9), dataset, "cpu")
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(steps):
            engine.step()
        print((time.perf_counter() - start) / steps, flush=True)
    engine.close()


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
