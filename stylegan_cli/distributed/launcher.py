"""The process that starts the ranks: it hands on signals, restarts after a loss, and tells what went wrong.

Not torch's elastic launcher: it hands every signal on at once, ends the ranks while they still save and loses what they
return, and starts them again after a mistake of the user's, which would only be repeated.
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

from ..errors import SganError
from .one_rank import BLOCKED, DONE, FAILED, HERE, STOP, Failure, run_rank
from .tensors import require_devices
from .torchrun import call_as_launched, has_launcher, launcher_world_size

# What a survivor raises may be seen before the loss that it raises for: a process's connections are closed first.
GRACE = 2.0  # seconds


def launch(
    function: Callable[..., Any],  # called as function(*arguments) in each process; must be importable
    arguments: Sequence[Any],
    ranks: int | None,  # None: as many as a launcher such as torchrun started, else one
    device: str = "cpu",  # 'cuda': NCCL, rank i on GPU i; else gloo
    restarts: int = 3,  # how often all ranks start again, with the same arguments, when one was lost to a signal
) -> Any:  # what the function returned: on the first rank, or on this one if torchrun started it
    """Run a function on so many ranks: here if it is one or torchrun started this process, else in new processes.

    A first Ctrl-C or SIGTERM is handed to the ranks as SIGTERM, once, and they may take their time; a second one ends
    them. KeyboardInterrupt: they were ended, or had not begun to listen. What a rank raises is raised here, a SganError
    as it is, anything else as a SganError that names it; the other ranks are ended, as they are when this process ends.
    """
    ranks = ranks or launcher_world_size() or 1
    if has_launcher():
        return call_as_launched(function, arguments, ranks, device)
    if ranks == 1:
        return function(*arguments)
    require_devices(ranks, device)
    threads = max(torch.get_num_threads() // ranks, 1)
    return _start_and_restart(ranks, restarts, (device, threads, function, tuple(arguments)))


class _LostRank(Exception):
    """A process has died of a signal. The message says whose and which."""


def _start_and_restart(ranks: int, restarts: int, work: tuple[Any, ...]) -> Any:
    loss = ""
    with (
        tempfile.TemporaryDirectory(prefix="sgan-ranks-", ignore_cleanup_errors=True) as folder,
        _asked_to_stop() as asked,
    ):
        for start in range(restarts + 1):
            try:
                return _run(ranks, Path(folder, str(start)), work, asked)
            except _LostRank as e:
                loss = str(e)
            if start < restarts:
                _say(f"{loss}; all ranks start again from the last state.")
    hint = "Memory may have run out: take fewer images at a time, --batch-gpu." if "SIGKILL" in loss else None
    raise SganError(f"{loss}, after {restarts} restart(s).", hint=hint)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second raises KeyboardInterrupt, later ones do nothing."""
    asked, insisted = threading.Event(), threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and not insisted.is_set():
            insisted.set()
            raise KeyboardInterrupt
        asked.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Rank:
    """A rank's process, and what it has said."""

    def __init__(self, number: int, work: tuple[Any, ...]):
        context = multiprocessing.get_context("spawn")
        self.number, self.ended = number, False
        self.words: dict[str, Any] = {}  # HERE: None; DONE: what the function returned; FAILED: Failure
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=run_rank, args=(theirs, number, *work))
        self.process.start()
        theirs.close()

    def listen(self) -> None:
        self.ended = not self.process.is_alive()  # looked at first: nothing that it said is missed
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                word, value = self.pipe.recv()
                self.words[word] = value

    @property
    def lost(self) -> bool:
        """Its process has ended and left no word."""
        return self.ended and not self.words.keys() & {DONE, FAILED}


def _run(ranks: int, meeting: Path, work: tuple[Any, ...], asked: threading.Event) -> Any:
    """One start of all ranks: what the first rank returned, when all have. Raises what one has raised, _LostRank if
    one has died."""
    group: list[_Rank] = []
    try:
        resource_tracker.ensure_running()  # starting it would lift the mask
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)  # the ranks inherit it
        try:
            for number in range(ranks):
                group.append(_Rank(number, (ranks, meeting, *work)))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _watch(group, asked)
        _raise(group, asked.is_set())
        for rank in group:
            rank.process.join(30)
    finally:
        for rank in group:
            rank.process.kill()
            rank.process.join(30)
            rank.pipe.close()
    return group[0].words[DONE]


def _watch(group: list[_Rank], asked: threading.Event) -> None:
    """Return when the ranks are done, or one of them has failed or is lost."""
    stopping, until = False, float("inf")
    while not all(DONE in rank.words for rank in group):
        if asked.is_set() and not stopping:
            if not all(HERE in rank.words for rank in group):  # no need to wait until they have loaded PyTorch
                raise KeyboardInterrupt
            stopping = True
            for rank in group:
                with contextlib.suppress(OSError):  # it has just ended
                    rank.pipe.send(STOP)
        failures = [rank.words[FAILED] for rank in group if FAILED in rank.words]
        if failures:
            until = min(until, time.monotonic() + GRACE)
        if any(rank.lost for rank in group) or any(f.mistake for f in failures) or time.monotonic() > until:
            return
        time.sleep(0.05)
        for rank in group:
            rank.listen()


def _raise(group: list[_Rank], asked: bool) -> None:
    """What has to be raised, if anything. A mistake comes first; anything else may have come of a loss."""
    failures: list[Failure] = [rank.words[FAILED] for rank in group if FAILED in rank.words]
    failures.sort(key=lambda failure: not failure.mistake)
    lost = [rank for rank in group if rank.lost]
    if lost and not (failures and failures[0].mistake):
        raise _loss(min(lost, key=lambda rank: rank.process.exitcode or 0), asked)  # a signal's is negative
    if failures:
        first = failures[0]
        raise SganError(first.sentence, first.hint) from RuntimeError(f"in a rank:\n{first.traceback}")


def _loss(rank: _Rank, asked: bool) -> BaseException:
    """What to raise when this rank's process has ended without a word."""
    code = rank.process.exitcode or 0
    if code >= 0:
        sentence = f"Rank {rank.number} ended without a word, with exit code {code}."
        return KeyboardInterrupt() if asked else SganError(sentence)  # had not begun to listen
    names = {number.value: number.name for number in signal.Signals}
    loss = f"Rank {rank.number} was lost ({names.get(-code, -code)})"
    if asked:
        return SganError(f"{loss} while it was to stop.", hint="What was saved before is there.")
    return _LostRank(loss)


def _say(sentence: str) -> None:
    print(("\n" if sys.stderr.isatty() else "") + sentence, file=sys.stderr, flush=True)
