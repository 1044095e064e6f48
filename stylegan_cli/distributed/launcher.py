"""The process that starts the ranks: it hands on signals, restarts after a loss, and tells what went wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..errors import SganError
from .one_rank import BLOCKED, Failure, failures, hush, run_rank
from .tensors import require_devices
from .torchrun import call_as_launched, launched, launched_ranks

# What a survivor raises may be seen before the loss that it raises for: a process's connections are closed first.
GRACE = 2.0  # seconds


def launch(
    function: Callable,  # called as function(*arguments) in each process; must be importable
    arguments: Sequence,
    ranks: int | None,  # None: as many as a launcher such as torchrun started, else one
    device: str = "cpu",  # 'cuda': NCCL, rank i on GPU i; else gloo
    restarts: int = 3,  # how often all ranks start again, with the same arguments, when one was lost to a signal
) -> Any:  # what the function returned: on the first rank, or on this one if torchrun started it
    """Run a function on so many ranks: here if it is one or torchrun started this process, else in new processes.

    A first Ctrl-C or SIGTERM is handed to the ranks as SIGTERM, once, and they may take their time; a second one ends
    them. KeyboardInterrupt: they were ended, or had not begun to listen. What a rank raises is raised here, a SganError
    as it is, anything else as a SganError that names it; the other ranks are ended, as they are when this process ends.
    """
    ranks = ranks or launched_ranks() or 1
    if launched():
        return call_as_launched(function, arguments, ranks, device)
    if ranks == 1:
        return function(*arguments)
    require_devices(ranks, device)
    threads = max(torch.get_num_threads() // ranks, 1)
    return _start_and_restart(ranks, restarts, (os.getpid(), device, threads, function, tuple(arguments)))


class _LostRank(Exception):
    """A process has died of a signal. The message says whose and which."""


def _start_and_restart(ranks: int, restarts: int, work: tuple) -> Any:
    hush()
    prefix = {"prefix": "sgan-ranks-", "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**prefix) as name, _asked_to_stop() as asked:
        for start in range(restarts + 1):
            folder = Path(name, str(start))
            folder.mkdir()
            try:
                return _Start(ranks, folder, asked).run(work)
            except _LostRank as e:
                loss = str(e)
            if start < restarts:
                _say(f"{loss}; all ranks start again from the last state.")
    hint = "Memory may have run out: take fewer pictures at a time, --batch-gpu." if "SIGKILL" in loss else None
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


class _Start:
    """One start of all ranks by torch's elastic launcher, which works in a thread of its own.

    In the main thread it would take our signal handlers' place. It never restarts by itself: it cannot tell a lost rank
    from a mistake.
    """

    def __init__(self, ranks: int, folder: Path, asked: threading.Event):
        self.ranks, self.folder, self.asked = ranks, folder, asked
        self.others = set(multiprocessing.active_children())
        self.processes: list[multiprocessing.Process] = []  # by rank, once all are there
        self.here = False  # all ranks can hear what they are asked
        self.results: dict[int, Any] = {}  # by rank
        self.error: Exception | None = None
        self.over = threading.Event()  # the launcher's thread is; to join it would, interrupted, take it for ended

    def run(self, work: tuple) -> Any:
        """What the first rank returned, when all have. Raises what one has raised, _LostRank if one has died."""
        try:
            threading.Thread(target=self._elastic, args=(work,), daemon=True).start()
            self._watch()
            lost, told = self._lost(), failures(self.folder)
        finally:
            self._end()
        self._raise(lost, told)
        return self.results.get(0)

    def _elastic(self, work: tuple) -> None:
        """What torch's launcher's thread does."""
        try:
            resource_tracker.ensure_running()  # starting it would lift the mask
            signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)  # the ranks inherit it
            self.results = _elastic_launch(self.ranks, self.folder, work)
        except Exception as e:
            self.error = e
        finally:
            self.over.set()

    def _watch(self) -> None:
        """Return when the ranks are done, or one of them has failed or is lost."""
        told_at = None
        while not self.over.wait(0.05):
            if not self.processes and len(started := self._children()) == self.ranks:
                self.processes = started
            self.here = self.here or self._all("here")
            if self.asked.is_set():
                self._ask_to_stop()
            found = failures(self.folder)
            told_at = told_at or (time.monotonic() if found else None)
            if self._lost() or any(f.mistake for f in found) or (told_at and time.monotonic() > told_at + GRACE):
                return

    def _ask_to_stop(self) -> None:
        if not self.here:  # no need to wait until they have loaded PyTorch
            raise KeyboardInterrupt
        self.folder.mkdir(parents=True, exist_ok=True)  # a long run's temporary folder may have been tidied away
        (self.folder / "stop").touch()

    def _lost(self) -> list[int]:
        """The ranks whose processes have ended and left no word."""
        ended = connection.wait([p.sentinel for p in self.processes], 0)
        return [i for i, p in enumerate(self.processes) if p.sentinel in ended and not self._has("done", i)]

    def _has(self, mark: str, rank: int) -> bool:
        return (self.folder / f"{mark}-{rank}").exists()

    def _all(self, mark: str) -> bool:
        return all(self._has(mark, rank) for rank in range(self.ranks))

    def _raise(self, lost: list[int], told: list[Failure]) -> None:
        """What has to be raised, if anything. A mistake comes first; anything else may have come of a loss."""
        if lost and not (told and told[0].mistake):
            raise self._loss({i: self.processes[i].exitcode or 0 for i in lost})
        if told:
            raise SganError(told[0].sentence, told[0].hint) from RuntimeError(f"in a rank:\n{told[0].traceback}")
        if self.error is not None and not self._all("done"):
            seen = getattr(self.error, "failures", {})  # a ChildFailedError's: gone before we had looked
            raise self._loss({i: failure.exitcode for i, failure in seen.items()}) if seen else self.error

    def _loss(self, codes: dict[int, int]) -> BaseException:
        """What to raise when the processes of these ranks have ended with these exit codes, and no word."""
        rank = min(codes, key=codes.get)  # a signal's is negative
        if codes[rank] >= 0:
            sentence = f"Rank {rank} ended without a word, with exit code {codes[rank]}."
            return KeyboardInterrupt() if self.asked.is_set() else SganError(sentence)  # had not begun to listen
        names = {number.value: number.name for number in signal.Signals}
        loss = f"Rank {rank} was lost ({names.get(-codes[rank], -codes[rank])})"
        if self.asked.is_set():
            return SganError(f"{loss} while it was to stop.", hint="What was saved before is there.")
        return _LostRank(loss)

    def _end(self) -> None:
        """End what is left of the ranks, and the thread with them."""
        until = time.monotonic() + 30
        while not self.over.wait(0.1) and time.monotonic() < until:
            for process in self._children():
                process.kill()

    def _children(self) -> list[multiprocessing.Process]:
        """The ranks' processes, those that have been started, by rank.

        To list them is to wait for them, and torch's thread waits too: not to be done around a rank's good end.
        """
        new = set(multiprocessing.active_children()) - self.others
        return sorted(new, key=lambda process: int(process.name.rpartition("-")[2]))


def _elastic_launch(ranks: int, folder: Path, work: tuple) -> dict[int, Any]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id="sgan",
        rdzv_backend="static",  # 'c10d' unpickles what anyone sends to its port
        rdzv_endpoint="localhost:0",  # any free port
        rdzv_configs={"rank": 0},
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=f"{folder}/logs"),
    )
    return elastic_launch(config, run_rank)(folder, *work)


def _say(sentence: str) -> None:
    print(("\n" if sys.stderr.isatty() else "") + sentence, file=sys.stderr, flush=True)
