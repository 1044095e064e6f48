"""What one rank does in a process that `launcher` started. The two speak through a pipe.

Signals would not do. They reach the ranks from the terminal and from whoever ends a whole control group, and only the
launcher knows which of them is a wish to stop. So they are blocked here, from before the first line of Python on.
"""

from __future__ import annotations

import _thread
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..errors import SganError
from .tensors import join_ranks

BLOCKED = {signal.SIGINT, signal.SIGTERM}
STOP = "stop"  # said by the launcher: the ranks are to stop in good order
HERE, DONE, FAILED = "here", "done", "failed"  # said by a rank: it can hear that; its function has returned, or raised


@dataclass(frozen=True)
class Failure:
    """What a rank's function raised."""

    mistake: bool  # a SganError: nothing else is worth telling
    sentence: str
    hint: str | None
    traceback: str


def run_rank(
    pipe: Connection,  # to the launcher
    rank: int,
    ranks: int,
    meeting: Path,  # a file by which the ranks find each other, in a folder of their own
    device: str,  # 'cpu' or 'cuda'
    threads: int,  # of this rank
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Join the other ranks, call the function and say how it ended, and what it returned on the first rank."""
    over = threading.Event()
    threading.Thread(target=_heed, args=(pipe, meeting.parent, over), daemon=True).start()
    pipe.send((HERE, None))
    torch.set_num_threads(threads)
    try:
        join_ranks(device, rank, init_method=f"file://{meeting}", rank=rank, world_size=ranks)
        result = function(*arguments)
        torch.distributed.destroy_process_group()
        over.set()
        pipe.send((DONE, result if rank == 0 else None))
    except BaseException as e:
        pipe.send((FAILED, _failure(rank, e)))
        while True:  # the connections stay open, so that no other rank fails of this, until the launcher ends us all
            time.sleep(60)


def _failure(rank: int, error: BaseException) -> Failure:
    told = "".join(traceback.format_exception(error))
    if isinstance(error, SganError):
        return Failure(True, str(error), error.hint, told)
    sentence = f"Rank {rank} failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Failure(False, sentence, "Run again with --debug for the traceback.", told)


def _heed(pipe: Connection, folder: Path, over: threading.Event) -> None:
    """End with the launcher. Hand its wish to stop to whoever listens to SIGTERM; end if nobody has ever done so."""
    try:
        listened = False
        while not pipe.poll(0.1):
            listened |= callable(signal.getsignal(signal.SIGTERM))
        pipe.recv()  # STOP
        listens = callable(signal.getsignal(signal.SIGTERM))
        if not (listens or listened or over.is_set()):
            os._exit(1)
        if listens and not over.is_set():  # otherwise it is about to return by itself
            _thread.interrupt_main(signal.SIGTERM)
        pipe.recv()  # nothing more is said
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
