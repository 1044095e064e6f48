"""The process that starts the ranks, forwards signals, restarts lost ranks and reports errors.

It replaces torch's elastic launcher, which forwards every signal at once, terminates ranks that are still saving, loses
their return values, and restarts after user errors, which would only repeat them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..errors import SganError, plural
from ..terminal import INSISTENT, STOP_SIGNALS, handle_signals
from .one_rank import DONE, FAILED, READY, STOP, Failure, run_rank
from .tensors import require_devices
from .torchrun import call_as_launched, has_launcher, launcher_world_size

# When a rank dies, its connections close first: errors of the survivors can arrive before its death is visible.
LOSS_DELAY = 2.0  # seconds


def launch(
    function: Callable[..., Any],  # called as function(*arguments) on each rank; must be importable
    arguments: Sequence[Any],
    ranks: int | None,  # None: the number that a launcher such as torchrun started, else 1
    device: str = "cpu",  # 'cuda': NCCL, with rank i on GPU i; otherwise gloo
    restarts: int = 3,  # number of times to restart all ranks, with the same arguments, after a signal killed one
) -> Any:  # return value of the function on the first rank, or on this one if torchrun started it
    """Run a function on every rank: in this process if there is one rank or torchrun started it, else in new processes.

    The first Ctrl-C or other request to stop is forwarded to the ranks as one SIGTERM, and they can take their time;
    a second one kills them. Raises KeyboardInterrupt if they were killed or did not handle SIGTERM yet. An error on any
    rank is raised here, as a SganError; the other ranks are then killed, which also happens if this process ends.
    """
    ranks = ranks or launcher_world_size() or 1
    if has_launcher():
        return call_as_launched(function, arguments, ranks, device)
    if ranks == 1:
        return function(*arguments)
    require_devices(ranks, device)
    threads = max(torch.get_num_threads() // ranks, 1)
    return _start_and_restart(ranks, restarts, (device, threads, function, tuple(arguments)))


class _LostRankError(Exception):
    """A signal killed a rank's process. The message names both."""


def _start_and_restart(ranks: int, restarts: int, work: tuple[Any, ...]) -> Any:
    message = ""
    with (
        tempfile.TemporaryDirectory(prefix="sgan-ranks-", ignore_cleanup_errors=True) as folder,
        _stop_signals() as stop_requested,
    ):
        for start in range(restarts + 1):
            try:
                return _run(ranks, Path(folder, str(start)), work, stop_requested)
            except _LostRankError as e:
                message = str(e)
            if start < restarts:
                _print(f"{message}. Restarting all ranks from the last state.")
    hint = "Memory may have run out: use a smaller --batch-gpu." if "SIGKILL" in message else None
    raise SganError(f"{message} after {plural(restarts, 'restart')}.", hint=hint)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that the first request to stop sets; the second raises KeyboardInterrupt if it insists, later ones do
    nothing."""
    stop_requested, interrupted = threading.Event(), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop_requested.is_set() and not interrupted.is_set() and number in INSISTENT:
            interrupted.set()
            raise KeyboardInterrupt
        stop_requested.set()

    with handle_signals(handle):
        yield stop_requested


class _Rank:
    """A rank's process, and the messages received from it."""

    def __init__(self, number: int, work: tuple[Any, ...]):
        context = multiprocessing.get_context("spawn")
        self.number, self.ended = number, False
        self.messages: dict[str, Any] = {}  # READY: None; DONE: return value of the function; FAILED: Failure
        self.pipe, child_pipe = context.Pipe()
        self.process = context.Process(target=run_rank, args=(child_pipe, number, *work))
        self.process.start()
        child_pipe.close()

    def receive(self) -> None:
        self.ended = not self.process.is_alive()  # checked first, so that no message is missed
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                kind, value = self.pipe.recv()
                self.messages[kind] = value

    @property
    def is_lost(self) -> bool:
        """Whether the process ended without reporting an outcome."""
        return self.ended and not self.messages.keys() & {DONE, FAILED}


def _run(ranks: int, rendezvous: Path, work: tuple[Any, ...], stop_requested: threading.Event) -> Any:
    """Start all ranks once, wait for all, and return the first one's result. Raises the error of a failed rank, or
    _LostRankError if a signal killed one."""
    group: list[_Rank] = []
    try:
        resource_tracker.ensure_running()  # starting it later would reset the mask
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the ranks inherit it
        try:
            for number in range(ranks):
                group.append(_Rank(number, (ranks, rendezvous, *work)))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _wait(group, stop_requested)
        _raise_failure(group, stop_requested.is_set())
        for rank in group:
            rank.process.join(30)
    finally:
        for rank in group:
            rank.process.kill()
            rank.process.join(30)
            rank.pipe.close()
    return group[0].messages[DONE]


def _wait(group: list[_Rank], stop_requested: threading.Event) -> None:
    """Wait until the ranks are done, or one of them has failed or is lost."""
    stopping, deadline = False, float("inf")
    while not all(DONE in rank.messages for rank in group):
        if stop_requested.is_set() and not stopping:
            if not all(READY in rank.messages for rank in group):  # do not wait until they have loaded PyTorch
                raise KeyboardInterrupt
            stopping = True
            for rank in group:
                with contextlib.suppress(OSError):  # it may have ended just now
                    rank.pipe.send(STOP)
        failures = [rank.messages[FAILED] for rank in group if FAILED in rank.messages]
        if failures:
            deadline = min(deadline, time.monotonic() + LOSS_DELAY)
        has_ended = any(rank.is_lost for rank in group) or any(f.is_user_error for f in failures)
        if has_ended or time.monotonic() > deadline:
            return
        time.sleep(0.05)
        for rank in group:
            rank.receive()


def _raise_failure(group: list[_Rank], stop_requested: bool) -> None:
    """Raise the cause of a failure, if any. User errors come first: other errors can be consequences of a lost rank."""
    failures: list[Failure] = [rank.messages[FAILED] for rank in group if FAILED in rank.messages]
    failures.sort(key=lambda failure: not failure.is_user_error)
    lost = [rank for rank in group if rank.is_lost]
    if lost and not (failures and failures[0].is_user_error):
        rank = min(lost, key=lambda rank: rank.process.exitcode or 0)  # negative after a signal
        raise _lost_rank_error(rank, stop_requested)
    if failures:
        first = failures[0]
        raise SganError(first.message, first.hint) from RuntimeError(f"on a rank:\n{first.traceback}")


def _lost_rank_error(rank: _Rank, stop_requested: bool) -> BaseException:
    """The error to raise for a lost rank."""
    code = rank.process.exitcode or 0
    if code >= 0:
        message = f"Rank {rank.number} ended unexpectedly with exit code {code}."
        return KeyboardInterrupt() if stop_requested else SganError(message)  # it did not handle SIGTERM yet
    names = {number.value: number.name for number in signal.Signals}
    message = f"Rank {rank.number} was killed by {names.get(-code, f'signal {-code}')}"
    if stop_requested:
        return SganError(f"{message} while it was stopping.", hint="Everything saved before is still there.")
    return _LostRankError(message)


def _print(message: str) -> None:
    print(("\n" if sys.stderr.isatty() else "") + message, file=sys.stderr, flush=True)
