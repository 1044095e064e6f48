"""One of several ranks, in a process started by torchrun or another launcher with the same environment."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import torch

from ..errors import SganError, plural
from ..terminal import STOP_SIGNALS, handle_signals
from .tensors import join_ranks, require_devices

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def has_launcher() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return all(name in os.environ for name in ENVIRONMENT)


def launcher_world_size() -> int | None:
    """The number of ranks that the launcher started on all machines; None without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if has_launcher() else None


def is_first_on_machine() -> bool:
    """Whether this process reports to the user: it is the first that a launcher started on this machine, or the only
    one."""
    return not has_launcher() or int(os.environ["LOCAL_RANK"]) == 0


def call_as_launched(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    ranks: int,  # number requested by the user
    device: str,  # 'cpu' or 'cuda'
) -> Any:  # return value of the function on this rank
    """Join the other ranks and call the function in this process.

    The first process on the machine raises any error. The others print an error only if the first has none, and exit
    with 1.
    """
    try:
        _check_ranks(ranks, device)
        if ranks == 1:
            return function(*arguments)
        join_ranks(device, int(os.environ["LOCAL_RANK"]))
        with _stops_as_sigterm():
            result = function(*arguments)
        torch.distributed.destroy_process_group()
        return result
    except KeyboardInterrupt:
        if is_first_on_machine():
            raise
        raise SystemExit(130) from None
    except Exception as e:
        if is_first_on_machine():
            raise
        _report_if_alone(e)


def _check_ranks(ranks: int, device: str) -> None:
    started = launcher_world_size() or 1
    if ranks != started:
        raise SganError(
            f"--gpus {ranks} does not match the {plural(started, 'process')} that the launcher started.",
            hint="Remove --gpus.",
        )
    require_devices(int(os.environ.get("LOCAL_WORLD_SIZE", int(os.environ["LOCAL_RANK"]) + 1)), device)


def _report_if_alone(
    error: Exception,
    seconds: float = 5,  # within this time, the launcher kills this process if the first one failed too
) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(1))
    time.sleep(seconds)
    message = (
        str(error) if isinstance(error, SganError) else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    )
    hint = f"\n{error.hint}" if isinstance(error, SganError) and error.hint else ""
    print(f"Error: Rank {os.environ['RANK']} failed: {message}{hint}", file=sys.stderr, flush=True)
    raise SystemExit(1)


@contextlib.contextmanager
def _stops_as_sigterm() -> Iterator[None]:
    """Handle Ctrl-C and SIGHUP like one SIGTERM. Each reaches a rank twice: from the terminal and from torchrun."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        if not callable(handler):
            raise KeyboardInterrupt
        if not received:
            received.append(number)
            handler(signal.SIGTERM, frame)

    with handle_signals(forward, tuple(number for number in STOP_SIGNALS if number != signal.SIGTERM)):
        yield
