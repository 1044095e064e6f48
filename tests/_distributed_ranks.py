"""Functions to call on ranks, and a script for test_distributed.py that launches them on two and reports the outcome.

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
    """Results of all communication functions."""
    number = distributed.rank() + 1
    tensors = [
        torch.full((2, 3), number).t(),
        torch.tensor(number == 1),
        torch.tensor([number, -0.5], dtype=torch.bfloat16),
        torch.tensor([complex(number, 1)], dtype=torch.complex128),
        torch.empty(0, 4),
    ]
    gathered = [distributed.gather_over_ranks(t) for t in tensors]
    assert all(g.dtype == t.dtype and g.shape == t.shape for t, parts in zip(tensors, gathered) for g in parts)
    one_bit = torch.zeros(5_000_000, dtype=torch.float16)
    same = distributed.same_on_all_ranks([torch.arange(7.0), torch.tensor(True), one_bit])
    one_bit.view(torch.int16)[-1] = number - 1
    negative_zero = torch.tensor([0.0, 0.0, -0.0 if number == 1 else 0.0])
    swapped = torch.tensor([1, 2] if number == 1 else [2, 1])
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(number))
    distributed.sum_gradients([parameter])
    results = {
        "ranks": distributed.world_size(),
        "gathered": [[str(g.reshape(-1).tolist()) for g in parts] for parts in gathered],
        "text": [distributed.broadcast_text(t if number == 1 else None) for t in ("Grüße\n", "", "x" * 5000)],
        "same": [same, *(distributed.same_on_all_ranks([torch.ones(3), t]) for t in (one_bit, negative_zero, swapped))],
        "any": [distributed.any_rank(flag, "cpu") for flag in (number == 2, False)],
        "sum": parameter.grad.tolist(),
        "threads": torch.get_num_threads(),
        "launched": distributed.has_launcher(),
    }
    write(folder, "helpers", results)


def lost_once(folder):
    """The second rank kills itself while the first waits for it; after the restart, both communicate and return."""
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


def user_error(folder):
    with Path(folder, "user_error").open("a") as f:
        f.write("started\n")
    distributed.sum_over_ranks(torch.ones(1))  # both have started
    if distributed.rank() == 1:
        raise SganError("The images are gone.", hint="Bring them back.")
    distributed.sum_over_ranks(torch.ones(1))


def other_error(folder):
    if distributed.rank() == 1:
        raise ValueError("no such\nthing")
    distributed.sum_over_ranks(torch.ones(1))


def no_handler(folder):
    """The first rank simulates Ctrl-C while no rank has a signal handler."""
    if distributed.rank() == 0:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


def training(folder, seconds):
    """Step until SIGTERM, as training does, then save, which takes this many seconds."""
    signals = []

    def handle(number, frame):
        signals.append(number)
        write(folder, "signals", len(signals))

    signal.signal(signal.SIGTERM, handle)
    time.sleep(0.5)
    write(folder, "pid", os.getpid())
    while not distributed.any_rank(bool(signals), "cpu"):
        time.sleep(0.2)  # long enough for all ranks to receive it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if distributed.rank() == 0:
        print("Saving.", file=sys.stderr, flush=True)
        time.sleep(seconds)
    write(folder, "saved", len(signals))


CALLS = {
    "lost_once": (lost_once, {}),
    "always_lost": (always_lost, {"restarts": 1}),
    "user_error": (user_error, {}),
    "other_error": (other_error, {}),
    "no_handler": (no_handler, {}),
    "training": (training, {}),
}


def main(folder, *names):
    for name in names:
        name, *numbers = name.split(":")
        function, options = CALLS[name]
        start, error, result = time.monotonic(), None, None
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            result = distributed.launch(function, (folder, *map(float, numbers)), 2, **options)
        except BaseException as e:
            error = [type(e).__name__, str(e), getattr(e, "hint", None), str(e.__cause__)]
        print(json.dumps([name, error, time.monotonic() - start, str(result)]), flush=True)
    sys.exit(130 if error and error[0] == "KeyboardInterrupt" else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
