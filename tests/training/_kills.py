"""Kill a small run again and again, resume each time, and compare its end with that of an uninterrupted run.

python tests/training/_kills.py --kills 200 --in-write 50 --ranks 1 --cfg auto     (takes minutes; prints counts)
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylegan_cli import distributed
from stylegan_cli.training import state_files
from stylegan_cli.training.ema import EMA
from stylegan_cli.training.recipes import gan_plan, gan_resume
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions

KIMG, SNAP = 0.24, 0.04  # 30 steps, 7 states
POINTS = ("header", "content", "fsync", "rename", "remove")  # in the write of a state


SMALL = {"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "mirror": True, "kimg": KIMG, "snap": SNAP}
OPTIONS = {  # of presets, so that everything that has state is on
    # ADA with a varying p, both regularizers, mixing.
    "auto": {"w_dim": 8, "mbstd_group": 2, "r1_interval": 4, "pl_interval": 2, "gamma": 1.0}
    | {"aug": "ada", "ada_kimg": 1.0},
    # Moments of batch normalization, vectors of the power iteration, two steps of D for one of G.
    "biggan": {},
    # Rates, penalties, averages and augmentation that move along a cosine.
    "r3gan": {"schedule_kimg": 0.2},
}


def die() -> None:
    """Kill all processes of the run at once, like a power failure."""
    os.killpg(0, signal.SIGKILL)


def arm(kill: str) -> None:  # 'never', 'after SECONDS', 'write COUNT POINT FRACTION'
    action, *arguments = kill.split()
    if action == "after":
        threading.Timer(float(arguments[0]), die).start()
    if action == "write":
        arm_write(int(arguments[0]), arguments[1], float(arguments[2]))


def arm_write(count: int, point: str, fraction: float) -> None:
    """Die in the `count`-th write of a state, at the given point."""
    put, fsync, rename, unlink = state_files._put, os.fsync, os.replace, Path.unlink
    num_writes = 0  # states started

    def dying_put(f, chunk):
        nonlocal num_writes
        header = bytes(chunk[8:9]) == b"{"
        num_writes += header
        if num_writes == count and (point == "header") == header and point in POINTS[:2]:
            put(f, chunk[: int(len(chunk) * fraction)])
            f.flush()
            die()
        put(f, chunk)

    def in_writer() -> bool:
        return num_writes == count and threading.current_thread().name == "state writer"

    def before(name, function):
        def called(*arguments, **options):
            if point == name and in_writer():
                die()
            return function(*arguments, **options)

        return called

    state_files._put = dying_put
    os.fsync, os.replace = before("fsync", fsync), before("rename", rename)
    Path.unlink = before("remove", unlink)


def lose_rank(step: int, marker: Path) -> None:
    """Kill only the last rank in the middle of a step, once."""
    average = EMA.update

    def dying(self, network, shown, batch):
        if shown == step * batch and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        average(self, network, shown, batch)

    EMA.update = dying


def work(config, folder, start, kill):
    if kill.startswith("lose"):
        if distributed.rank() == distributed.world_size() - 1:
            lose_rank(int(kill.split()[1]), folder.with_suffix(".lost"))
    elif distributed.rank() == 0:
        arm(kill)
    train(config, folder, "cpu", start, RunOptions(quiet=True))


def run(data: str, folder: Path, ranks: int, kill: str, cfg: str) -> None:
    """Start the run or resume it."""
    torch.set_num_threads(1)
    if (folder / "config.json").is_file() and state_files.list_states(folder):
        plan = gan_resume.plan_resumed_run(folder, {})
    else:
        plan = gan_plan.plan_new_run(data, cfg, gpus=ranks, **SMALL | OPTIONS[cfg])
    folder.mkdir(exist_ok=True)
    distributed.launch(work, (plan.config, folder, plan.start, kill), ranks)


# ---------------------------------------------------------------------------------- the parent process


def make_data(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(30):  # not a multiple of the batch, so that epochs end within steps
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def child(data: Path, folder: Path, ranks: int, kill: str, cfg: str = "auto") -> subprocess.CompletedProcess:
    command = [sys.executable, __file__, "--child", str(data), str(folder), str(ranks), kill, cfg]
    return subprocess.run(command, start_new_session=True, capture_output=True, text=True, timeout=900)


def kills(seed: int, in_write: int, at_random: int, seconds: float) -> list[str]:
    rng = random.Random(seed)
    plans = [f"write {rng.randint(1, 2)} {POINTS[i % len(POINTS)]} {rng.random()}" for i in range(in_write)]
    plans += [f"after {rng.uniform(0, seconds)}" for _ in range(at_random)]
    rng.shuffle(plans)
    return plans


def killed_run(data: Path, folder: Path, ranks: int, plans: list[str], cfg: str = "auto") -> int:
    """Kill the run as planned, restarting it if it ends before. Return the number of kills."""
    deaths = 0
    for kill in plans:
        before = len(list(folder.glob("*")))
        if (folder / "config.json").exists() and before and is_finished(folder):
            for path in folder.iterdir():
                path.unlink()
        result = child(data, folder, ranks, kill, cfg)
        assert result.returncode in (0, -signal.SIGKILL), f"{kill}: {result.stderr}"
        deaths += result.returncode != 0
    if not is_finished(folder):
        assert child(data, folder, ranks, "never", cfg).returncode == 0
    return deaths


def is_finished(folder: Path) -> bool:
    return any(float(p.name.split("-")[1]) >= KIMG for p in state_files.list_states(folder))


def final_state(folder: Path) -> dict[str, object]:
    """All values of the last state by name, except the elapsed seconds and the run's id, which is random."""
    state, about = state_files.read_state(state_files.list_states(folder)[0])
    values: dict[str, object] = {}

    def walk(name, value):
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        )
        for k, v in pairs:
            walk(f"{name}.{k}", v)
        if not isinstance(value, (dict, list, tuple)):
            values[name] = value

    walk("", state)
    for name in ("seconds", "run"):
        values.pop(f".record.{name}", None)
    return values


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    def equal(x, y):
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--in-write", type=int, default=60)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cfg", choices=OPTIONS, default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = make_data(folder / "data")
        assert child(data, folder / "uninterrupted", arguments.ranks, "never", arguments.cfg).returncode == 0
        expected, deaths, rounds = final_state(folder / "uninterrupted"), 0, 0
        plans = kills(arguments.seed, arguments.in_write, arguments.kills - arguments.in_write, 4.0)
        while plans:
            part, plans = plans[:10], plans[10:]
            deaths += killed_run(data, folder / str(rounds), arguments.ranks, part, arguments.cfg)
            assert same(expected, final_state(folder / str(rounds))), f"round {rounds} ended differently"
            rounds += 1
            print(f"{deaths} kills, {rounds} runs, all bit-exact with the uninterrupted one", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        run(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
    else:
        main()
