"""What training states survive: files cut short, flipped bits, full disks, killed processes.

python benchmarks/damage_states.py            (1,000 of each, 100 kills: half a minute)

Every try must end with a state that is right to the bit: the newest where it was written well, else the one before.
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
    """A state that follows from its number, with some of everything."""
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


def same(a: object, b: object) -> bool:
    """Equal in value, type and, for tensors, in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().view(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return same(list(a), list(b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def whole(
    folder: Path,
    said: list[str],  # gets what the user is told
) -> int | None:
    """The number of the state that a run would go on from; None if there is none, or if it is not right."""
    try:
        found = load_newest(folder, said.append)
    except state_files.SganError as e:
        said.append(str(e))
        return None
    if found is None:
        return None
    state, about, _ = found
    return about["shown"] if same(state, make_state(about["shown"], len(state["G"]["weight"]))) else None


def two_states(folder: Path) -> tuple[Path, bytes]:
    """1000 and 2000 in a folder; the newer one's file and content."""
    writer = StateWriter(folder)
    for shown in (1000, 2000):
        writer.save(make_state(shown), {}, shown)
    writer.wait()
    newest = list_states(folder)[0]
    return newest, newest.read_bytes()


def damaged(
    folder: Path,
    contents: Iterator[bytes],  # for the newest state's file
) -> int:  # how often the older state was taken, with one sentence
    newest, _ = two_states(folder)
    good = 0
    for content in contents:
        newest.write_bytes(content)
        said: list[str] = []
        shown = whole(folder, said)
        good += shown == 1000 and len(said) == 1 and newest.name in said[0]
    return good


def truncations(folder: Path, tries: int, dice: random.Random) -> int:
    _, content = two_states(folder)
    return damaged(folder, (content[: dice.randrange(len(content))] for _ in range(tries)))


def bit_flips(folder: Path, tries: int, dice: random.Random) -> int:
    """At random, and the first tries in the header's length and its beginning."""
    _, content = two_states(folder)

    def flipped() -> Iterator[bytes]:
        for i in range(tries):
            at = i if i < min(tries // 4, 64) else dice.randrange(len(content))
            yield content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]

    return damaged(folder, flipped())


def full_disks(folder: Path, tries: int, dice: random.Random) -> int:
    """Room ends at a random byte, once to three times, then there is some: nothing may be lost on the way."""
    put, good = state_files._put, 0
    for i in range(tries):
        _, content = two_states(folder)
        room, times = dice.randrange(len(content)), dice.randrange(1, 4)
        said, kept = [], []
        writer = StateWriter(folder, notify=said.append)
        writer.every = 0.001

        def scarce(f, chunk, room=room, kept=kept, times=times):
            if f.tell() + len(chunk) > room and len(kept) < times:
                put(f, chunk[: max(room - f.tell(), 0)])
                kept.append([p.name for p in list_states(folder)])
                raise OSError(dice.choice([errno.ENOSPC, errno.EDQUOT]), "full")
            put(f, chunk)

        with mock.patch.object(state_files, "_put", scarce):
            writer.save(make_state(3000 + i), {}, 3000 + i)
            writer.wait()
        told = len(said) == 2 and "training waits" in said[0]
        good += whole(folder, []) == 3000 + i and told and len(kept) == times and all(len(k) == 2 for k in kept)
        shutil.rmtree(folder)
    return good


def kills(folder: Path, tries: int, dice: random.Random) -> int:
    """SIGKILL at a random moment: the last state that was reported as written is there, or a newer one."""
    size, good, reported = 500_000, 0, 0
    for _ in range(tries):
        first = reported + 1
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _save_for_ever(folder, first, size, writing)
        os.close(writing)
        with open(reading) as lines:
            lines.readline()
            time.sleep(dice.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            reported = first + len(lines.read().split())
        os.waitpid(child, 0)
        StateWriter(folder)
        leftovers = [p for p in folder.iterdir() if p.name.startswith(".")]
        shown = whole(folder, [])
        good += shown is not None and shown >= reported and not leftovers and len(list_states(folder)) <= 3
    return good


def _save_for_ever(folder: Path, first: int, size: int, writing: int) -> None:
    torch.set_num_threads(1)
    writer = StateWriter(folder)
    for shown in range(first, 10**9):
        writer.save(make_state(shown, size), {}, shown)
        writer.wait()
        os.write(writing, b"%d\n" % shown)


CASES = {"cut short": truncations, "one bit flipped": bit_flips, "full disk": full_disks, "killed": kills}


@click.command()
@click.option("--tries", default=1000, show_default=True, help="Of each kind; of kills a tenth.")
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write; a temporary folder if left out.")
def main(tries: int, seed: int, folder: Path | None) -> None:
    torch.set_num_threads(1)
    print("| damage | tries | survived | seconds |\n|---|---|---|---|")
    lost = 0
    for name, case in CASES.items():
        count = tries if case is not kills else max(tries // 10, 1)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            survived = case(Path(work, "run"), count, random.Random(seed))
        lost += count - survived
        print(f"| {name} | {count} | {survived} | {time.monotonic() - began:.1f} |", flush=True)
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
