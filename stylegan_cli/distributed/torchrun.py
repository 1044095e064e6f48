"""One rank of many in a process that torchrun, or another launcher with the same environment, has started."""

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

from ..errors import SganError
from .tensors import join_ranks, require_devices

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def has_launcher() -> bool:
    """Whether a launcher started this process as one rank of many."""
    return all(name in os.environ for name in ENVIRONMENT)


def launcher_world_size() -> int | None:
    """How many ranks the launcher started on all machines; None if there was no launcher."""
    return int(os.environ["WORLD_SIZE"]) if has_launcher() else None


def is_first_on_machine() -> bool:
    """Whether this process is the one of its machine that speaks to the user: the first that a launcher started
    there, or the only one."""
    return not has_launcher() or int(os.environ["LOCAL_RANK"]) == 0


def call_as_launched(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    ranks: int,  # as the user wants it
    device: str,  # 'cpu' or 'cuda'
) -> Any:  # what the function returned here
    """Join the other ranks and call the function in this process.

    The machine's first process raises what goes wrong; the others tell it only if it is theirs alone, and exit with 1.
    """
    try:
        _refuse(ranks, device)
        if ranks == 1:
            return function(*arguments)
        join_ranks(device, int(os.environ["LOCAL_RANK"]))
        with _interrupt_as_terminate():
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
        _tell_if_alone(e)


def _refuse(ranks: int, device: str) -> None:
    if ranks != launcher_world_size():
        raise SganError(
            f"--gpus {ranks} does not go with the {launcher_world_size()} process(es) that the launcher started.",
            hint="Leave --gpus out.",
        )
    require_devices(int(os.environ.get("LOCAL_WORLD_SIZE", int(os.environ["LOCAL_RANK"]) + 1)), device)


def _tell_if_alone(
    error: Exception,
    seconds: float = 5,  # by then the launcher has ended this process if the first one failed too
) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(1))
    time.sleep(seconds)
    what = (
        str(error) if isinstance(error, SganError) else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    )
    hint = f"\n{error.hint}" if isinstance(error, SganError) and error.hint else ""
    print(f"Error: Rank {os.environ['RANK']} failed: {what}{hint}", file=sys.stderr, flush=True)
    raise SystemExit(1)


@contextlib.contextmanager
def _interrupt_as_terminate() -> Iterator[None]:
    """Ctrl-C reaches a rank from the terminal and again from torchrun: both are one wish, told as SIGTERM."""
    asked: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        listener = signal.getsignal(signal.SIGTERM)
        if not callable(listener):
            raise KeyboardInterrupt
        if not asked:
            asked.append(number)
            listener(signal.SIGTERM, frame)

    old = signal.signal(signal.SIGINT, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
