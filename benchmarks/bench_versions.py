"""A training step of this version and of another checkout, in turn, as `sgan train` runs it; or a command.

git worktree add ../before COMMIT
python benchmarks/bench_versions.py --before ../before --rounds 20
python benchmarks/bench_versions.py --before ../before --cfg demo-stylegan3
python benchmarks/bench_versions.py --before ../before --command "edit drag --seed 1 --points 20,20:30,20 --steps 1"

Each version is a process of its own, on a CPU, which trains the preset on the bundled images with the precision that it
chooses. The clock is that of the processor with one thread, otherwise wall time. A command
is measured from start to end, with one thread, on the processor's clock.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from _harness import Bench, benchmark
from bench_busy import measure
from bench_generate import in_turn

from stylegan_cli.threads import BUSY

HERE = Path(__file__).parents[1]
# Of both versions: only what has not changed between them.
SERVE = """
import os, sys, time, torch, stylegan_cli
from stylegan_cli.cli.call import keep_freed_memory
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.training.presets import PRESETS, make_train_config
from stylegan_cli.training.recipes.gan import make_engine

assert os.path.samefile(os.path.dirname(stylegan_cli.__path__[0]), "."), "another version is installed"
cfg, steps, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
clock = time.process_time if threads == 1 else time.perf_counter
torch.set_num_threads(threads)
keep_freed_memory()
dataset = open_dataset(None, size=(32, 32))
if cfg == "demo-stylegan2" and cfg not in PRESETS:
    cfg = "demo"  # its old name
engine = make_engine(make_train_config(cfg, dataset.spec, precision="auto", kimg=1e9), dataset, "cpu")
for _ in sys.stdin:
    start = clock()
    for _ in range(steps):
        engine.step()
    print((clock() - start) / steps, flush=True)
engine.close()
"""


@click.command()
@click.option(
    "--before", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout."
)
@click.option("--cfg", default="demo-stylegan2", show_default=True, help="Preset, of the same networks in both.")
@click.option("--steps", default=16, show_default=True, help="Steps of one measurement: all phases run in 16.")
@click.option("--threads", default=1, show_default=True, help="Number of threads of each version.")
@click.option("--command", help="Arguments of sgan, to measure in place of a training step.")
@benchmark
def main(bench: Bench, before: Path, cfg: str, steps: int, threads: int, command: str | None) -> None:
    trees = {"ours": HERE, "before": before.resolve()}
    if command:
        times, _ = in_turn(trees, shlex.split(command), bench.rounds)
        case = f"sgan {command}, from start to end, one thread"
    else:
        times = steps_in_turn(trees, cfg, steps, threads, bench.rounds)
        case = f"training step, {cfg} preset, " + ("one thread" if threads == 1 else f"{threads} threads")
    ratio = statistics.median(old / new for old, new in zip(times["before"], times["ours"], strict=True))
    seconds = {name: statistics.median(ts) for name, ts in times.items()}
    row = {"case": case, "op": "versions", "dtype": "auto", "first": "ours"}
    row |= {"seconds": seconds, "ours": seconds["ours"], "ratio": {"before": ratio}, "wrong": [], "failed": {}}
    bench.add(row)


def steps_in_turn(
    trees: dict[str, Path], cfg: str, steps: int, threads: int, rounds: int
) -> dict[str, list[float]]:  # by name, seconds per step
    with contextlib.ExitStack() as stack:
        trainers = {name: stack.enter_context(trainer(tree, cfg, steps, threads)) for name, tree in trees.items()}
        return measure(trainers, rounds)


@contextlib.contextmanager
def trainer(tree: Path, cfg: str, steps: int, threads: int) -> Iterator[subprocess.Popen]:
    """A process that runs some training steps of a checkout for each line it receives, and prints the seconds per
    step."""
    environment = {**os.environ, **BUSY, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", SERVE, cfg, str(steps), str(threads)]  # imports from the current folder first
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.communicate()  # closes its input, which ends it


if __name__ == "__main__":
    main()
