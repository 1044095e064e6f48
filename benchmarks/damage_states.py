"""Robustness of training states: truncated files, flipped bits, full disks, killed processes.

python benchmarks/damage_states.py            (1,000 of each and 100 kills, in half a minute)

Every trial must end with a bit-exact state: the newest if it was written completely, otherwise the one before.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import torch

from stylegan_cli.training import state_files
from stylegan_cli.training.state_files import StateWriter, list_states, load_newest


def make_state(
    shown: int,
    size: int = 64,  # numbers in the largest tensor
) -> dict:
    """A state determined by its number, with values of all types."""
    generator = torch.Generator().manual_seed(shown)
    weights = torch.randn(size, generator=generator)
    moments = {0: {"step": torch.tensor(float(shown)), "exp_avg": weights.half()}}
    groups = [{"lr": 0.002, "betas": (0.0, 0.99), "params": [0], "foreach": None}]
    return {
        "G": {"weight": weights, "steps": torch.arange(5) * shown},
        "optimizer": {"state": moments, "param_groups": groups},
        "rng": {"torch": generator.get_state()[:99]},
        "clock": {"shown": shown, "worst": float("inf"), "name": "grün"},
    }


def is_identical(a: object, b: object) -> bool:
    """Whether two values are equal, in type and, for tensors, in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().view(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return is_identical(list(a), list(b)) and all(is_identical(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(is_identical(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def load_number(
    folder: Path,
    messages: list[str],  # receives the messages to the user
) -> int | None:
    """The number of the state that a run would resume from; None if there is none, or if it is wrong."""
    try:
        loaded = load_newest(folder, messages.append)
    except state_files.SganError as e:
        messages.append(str(e))
        return None
    if loaded is None:
        return None
    state, metadata, _ = loaded
    return metadata["shown"] if is_identical(state, make_state(metadata["shown"], len(state["G"]["weight"]))) else None


def write_two_states(folder: Path) -> tuple[Path, bytes]:
    """Write states 1000 and 2000. Returns the file of the newer one and its content."""
    writer = StateWriter(folder)
    for shown in (1000, 2000):
        writer.save(make_state(shown), {}, shown)
    writer.wait()
    newest = list_states(folder)[0]
    return newest, newest.read_bytes()


def count_recovered(
    folder: Path,
    contents: Iterator[bytes],  # to write into the file of the newest state
) -> int:
    """The number of times that the older state was loaded, with one message."""
    newest, _ = write_two_states(folder)
    count = 0
    for content in contents:
        newest.write_bytes(content)
        messages: list[str] = []
        number = load_number(folder, messages)
        count += number == 1000 and len(messages) == 1 and newest.name in messages[0]
    return count


def truncate(folder: Path, trials: int, rng: random.Random) -> int:
    _, content = write_two_states(folder)
    return count_recovered(folder, (content[: rng.randrange(len(content))] for _ in range(trials)))


def flip_bits(folder: Path, trials: int, rng: random.Random) -> int:
    """The first trials flip bits at the start of the header, the others anywhere."""
    _, content = write_two_states(folder)

    def flipped() -> Iterator[bytes]:
        for i in range(trials):
            at = i if i < min(trials // 4, 64) else rng.randrange(len(content))
            yield content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]

    return count_recovered(folder, flipped())


def fill_disk(folder: Path, trials: int, rng: random.Random) -> int:
    """The disk is full at a random byte, one to three times, before space is freed: nothing must be lost."""
    put, count = state_files._put, 0
    for i in range(trials):
        _, content = write_two_states(folder)
        space, times = rng.randrange(len(content)), rng.randrange(1, 4)
        messages, states = [], []
        writer = StateWriter(folder, notify=messages.append)
        writer.every = 0.001

        def put_limited(f, chunk, space=space, states=states, times=times):
            if f.tell() + len(chunk) > space and len(states) < times:
                put(f, chunk[: max(space - f.tell(), 0)])
                states.append([p.name for p in list_states(folder)])
                raise OSError(rng.choice([errno.ENOSPC, errno.EDQUOT]), "full")
            put(f, chunk)

        with mock.patch.object(state_files, "_put", put_limited):
            writer.save(make_state(3000 + i), {}, 3000 + i)
            writer.wait()
        reported = len(messages) == 2 and "training waits" in messages[0]
        kept = len(states) == times and all(len(names) == 2 for names in states)
        count += load_number(folder, []) == 3000 + i and reported and kept
        shutil.rmtree(folder)
    return count


def kill(folder: Path, trials: int, rng: random.Random) -> int:
    """SIGKILL at a random moment: the last state reported as written must be there, or a newer one."""
    size, count, reported = 500_000, 0, 0
    for _ in range(trials):
        first = reported + 1
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _save_forever(folder, first, size, writing)
        os.close(writing)
        with open(reading) as lines:
            lines.readline()
            time.sleep(rng.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            reported = first + len(lines.read().split())
        os.waitpid(child, 0)
        StateWriter(folder)
        leftovers = [p for p in folder.iterdir() if p.name.startswith(".")]
        number = load_number(folder, [])
        count += number is not None and number >= reported and not leftovers and len(list_states(folder)) <= 3
    return count


def _save_forever(folder: Path, first: int, size: int, writing: int) -> None:
    torch.set_num_threads(1)
    writer = StateWriter(folder)
    for shown in range(first, 10**9):
        writer.save(make_state(shown, size), {}, shown)
        writer.wait()
        os.write(writing, b"%d\n" % shown)


CASES = {"truncated": truncate, "one bit flipped": flip_bits, "full disk": fill_disk, "killed": kill}


@click.command()
@click.option("--tries", "trials", default=1000, show_default=True, help="Trials of each kind; a tenth for kills.")
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write. Default: a temporary folder.")
def main(trials: int, seed: int, folder: Path | None) -> None:
    torch.set_num_threads(1)
    print("| damage | trials | survived | seconds |\n|---|---|---|---|")
    lost = 0
    for name, case in CASES.items():
        count = trials if case is not kill else max(trials // 10, 1)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            survived = case(Path(work, "run"), count, random.Random(seed))
        lost += count - survived
        print(f"| {name} | {count} | {survived} | {time.monotonic() - start:.1f} |", flush=True)
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
