"""One rank in a process that `launcher` started. The two communicate through a pipe.

Signals alone are not enough: they also reach the ranks from the terminal, or when a whole control group is stopped, and
only the launcher can tell which of them is a request to stop. So the ranks start with signals blocked.
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
from ..terminal import prepare_streams
from .tensors import join_ranks

STOP = "stop"  # from the launcher: stop cleanly
READY, DONE, FAILED = "ready", "done", "failed"  # from a rank: it can receive STOP; its function returned, or raised


@dataclass(frozen=True)
class Failure:
    """The exception of a rank's function."""

    is_user_error: bool  # a SganError: its message says everything
    message: str
    hint: str | None
    traceback: str


def run_rank(
    pipe: Connection,  # to the launcher
    rank: int,
    ranks: int,
    rendezvous: Path,  # file through which the ranks find each other, in a folder of their own
    device: str,  # 'cpu' or 'cuda'
    threads: int,  # CPU threads of this rank
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Join the other ranks, call the function and report its outcome, with the return value on the first rank."""
    prepare_streams()
    finished = threading.Event()
    threading.Thread(target=_forward_stop_requests, args=(pipe, rendezvous.parent, finished), daemon=True).start()
    pipe.send((READY, None))
    torch.set_num_threads(threads)
    try:
        join_ranks(device, rank, init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
        result = function(*arguments)
        torch.distributed.destroy_process_group()
        finished.set()
        pipe.send((DONE, result if rank == 0 else None))
    except BaseException as e:
        pipe.send((FAILED, _failure(rank, e)))
        while True:  # keep connections open, so that other ranks do not fail too, until the launcher kills all
            time.sleep(60)


def _failure(rank: int, error: BaseException) -> Failure:
    text = "".join(traceback.format_exception(error))
    if isinstance(error, SganError):
        return Failure(True, str(error), error.hint, text)
    message = f"Rank {rank} failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Failure(False, message, "Run again with --debug for the traceback.", text)


def _forward_stop_requests(pipe: Connection, folder: Path, finished: threading.Event) -> None:
    """Pass a STOP on to the SIGTERM handler, or exit if there was never one. Exit if the launcher exits."""
    try:
        handler_was_installed = False
        while not pipe.poll(0.1):
            handler_was_installed |= callable(signal.getsignal(signal.SIGTERM))
        pipe.recv()  # STOP
        has_handler = callable(signal.getsignal(signal.SIGTERM))
        if not (has_handler or handler_was_installed or finished.is_set()):
            os._exit(1)
        if has_handler and not finished.is_set():  # otherwise the function is about to return anyway
            _thread.interrupt_main(signal.SIGTERM)
        pipe.recv()  # blocks until the launcher ends
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
