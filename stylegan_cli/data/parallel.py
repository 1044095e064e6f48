"""Map a function over items in several processes, with results in input order."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import SganError
from ..terminal import STOP_SIGNALS, handle_signals
from ..threads import available_cores

_CHUNK = 16  # items per request to a process
_AHEAD = 2  # chunks that each process may have pending


def ordered_map(
    work: Callable[[Any], Any],  # picklable, with picklable results
    items: Sequence[Any],
    workers: int | None = None,  # number of processes; None: one per available core; 1: only this process
) -> Generator[Any, None, None]:
    """Yield work(item) for every item, in order; chunk k goes to worker k mod workers.

    Memory is bounded, because few chunks are pending at a time. Closing the iterator, an exception or Ctrl-C ends the
    processes at once. Raises what ``work`` raises, and SganError if a process dies.
    """
    chunks = -(-len(items) // _CHUNK)
    workers = min(workers or available_cores(), chunks)
    if workers <= 1:
        yield from map(work, items)
        return
    with _team(work, items, workers) as team:
        try:
            for chunk in range(min(chunks, _AHEAD * workers)):
                team[chunk % workers].send(chunk)
            for chunk in range(chunks):
                result = team[chunk % workers].recv()
                if chunk + _AHEAD * workers < chunks:
                    team[chunk % workers].send(chunk + _AHEAD * workers)
                if isinstance(result, Exception):
                    raise result
                yield from result
        except (EOFError, BrokenPipeError, ConnectionResetError) as e:
            raise SganError("A worker process died, most likely out of memory.", hint="Use fewer --workers.") from e


@contextlib.contextmanager
def _team(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[list[Connection]]:
    """Start worker processes, which end with the block; yield a pipe to each."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    team: list[tuple[Connection, BaseProcess]] = []
    try:
        with _interrupts_deferred():
            for _ in range(workers):
                pipe, remote = context.Pipe()
                # A forked process inherits these ends: they would keep the pipes open if this process is killed.
                inherited = [pipe, *(p for p, _ in team)] if context.get_start_method() == "fork" else []
                process = context.Process(target=_serve, args=(remote, inherited, work, items), daemon=True)
                process.start()
                remote.close()  # so that the pipe closes when the process ends
                team.append((pipe, process))
        yield [pipe for pipe, _ in team]
    finally:
        for pipe, process in team:
            process.kill()  # workers have no state to lose
            process.join()
            pipe.close()


def _serve(pipe: Connection, inherited: list[Connection], work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """Run in a worker process: answer chunk numbers with results until the parent closes the pipe or dies."""
    for other in inherited:
        other.close()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent handles them
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            start = pipe.recv() * _CHUNK
            try:
                result: Any = [work(item) for item in items[start : start + _CHUNK]]
            except Exception as e:
                result = e
            pipe.send(result)


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Defer requests to stop while processes are forked: an exception inside Python's own fork hooks would be lost."""
    received: list[int] = []
    try:
        with handle_signals(lambda number, _: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])
