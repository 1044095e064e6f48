"""Functions to call on ranks, and a script for test_distributed.py that launches them on two and tells what came of it.

python _distributed_ranks.py FOLDER NAME ...
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from stylegan_cli import distributed
from stylegan_cli.errors import SganError


def write(folder, name, value):
    Path(folder, f"{name}-{distributed.rank()}").write_text(json.dumps(value))


def helpers(folder):
    """What the ranks hear from each other."""
    mine = distributed.rank() + 1
    tensors = [
        torch.full((2, 3), mine).t(),
        torch.tensor(mine == 1),
        torch.tensor([mine, -0.5], dtype=torch.bfloat16),
        torch.tensor([complex(mine, 1)], dtype=torch.complex128),
        torch.empty(0, 4),
    ]
    gathered = [distributed.gather_over_ranks(t) for t in tensors]
    assert all(g.dtype == t.dtype and g.shape == t.shape for t, parts in zip(tensors, gathered) for g in parts)
    one_bit = torch.zeros(5_000_000, dtype=torch.float16)
    same = distributed.same_on_all_ranks([torch.arange(7.0), torch.tensor(True), one_bit])
    one_bit.view(torch.int16)[-1] = mine - 1
    negative_zero = torch.tensor([0.0, 0.0, -0.0 if mine == 1 else 0.0])
    swapped = torch.tensor([1, 2] if mine == 1 else [2, 1])
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(mine))
    distributed.sum_gradients([parameter])
    found = {
        "ranks": distributed.world_size(),
        "gathered": [[str(g.reshape(-1).tolist()) for g in parts] for parts in gathered],
        "text": [distributed.broadcast_text(t if mine == 1 else None) for t in ("Grüße\n", "", "x" * 5000)],
        "same": [same, *(distributed.same_on_all_ranks([torch.ones(3), t]) for t in (one_bit, negative_zero, swapped))],
        "any": [distributed.any_rank(flag, "cpu") for flag in (mine == 2, False)],
        "sum": parameter.grad.tolist(),
        "threads": torch.get_num_threads(),
        "launched": distributed.has_launcher(),
    }
    write(folder, "helpers", found)


def lost_once(folder):
    """The second rank kills itself while the first waits for it; started again, both speak and return."""
    died = Path(folder, "died")
    if distributed.rank() == 1 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.sum_over_ranks(torch.ones(1))
    helpers(folder)
    return Path(folder, str(distributed.rank()))


def always_lost(folder):
    with Path(folder, f"lost-{distributed.rank()}").open("a") as f:
        f.write("started\n")
    if distributed.rank() == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    distributed.sum_over_ranks(torch.ones(1))


def mistaken(folder):
    with Path(folder, "mistaken").open("a") as f:
        f.write("started\n")
    if distributed.rank() == 1:
        raise SganError("The images are gone.", hint="Bring them back.")
    distributed.sum_over_ranks(torch.ones(1))


def broken(folder):
    if distributed.rank() == 1:
        raise ValueError("no such\nthing")
    distributed.sum_over_ranks(torch.ones(1))


def deaf(folder):
    """Nobody listens when the first rank has Ctrl-C pressed."""
    if distributed.rank() == 0:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


def training(folder, save):
    """Steps until SIGTERM, as training does, then a save that takes so many seconds."""
    heard = []

    def ask(number, frame):
        heard.append(number)
        write(folder, "heard", len(heard))

    signal.signal(signal.SIGTERM, ask)
    time.sleep(0.5)
    write(folder, "pid", os.getpid())
    while not distributed.any_rank(bool(heard), "cpu"):
        time.sleep(0.2)  # long enough that all ranks hear it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if distributed.rank() == 0:
        print("Saving.", file=sys.stderr, flush=True)
        time.sleep(save)
    write(folder, "saved", len(heard))


CALLS = {
    "lost_once": (lost_once, {}),
    "always_lost": (always_lost, {"restarts": 1}),
    "mistaken": (mistaken, {}),
    "broken": (broken, {}),
    "deaf": (deaf, {}),
    "training": (training, {}),
}


def main(folder, *names):
    for name in names:
        name, *numbers = name.split(":")
        function, options = CALLS[name]
        began, told, result = time.monotonic(), None, None
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            result = distributed.launch(function, (folder, *map(float, numbers)), 2, **options)
        except BaseException as e:
            told = [type(e).__name__, str(e), getattr(e, "hint", None), str(e.__cause__)]
        print(json.dumps([name, told, time.monotonic() - began, str(result)]), flush=True)
    sys.exit(130 if told and told[0] == "KeyboardInterrupt" else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
