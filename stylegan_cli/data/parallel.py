"""Work spread over processes, its results in the order of the input."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import SganError
from ..threads import available_cores

_CHUNK = 16  # items that a process is asked for at a time
_AHEAD = 2  # chunks that a process may be asked for before its first one is fetched


def ordered_map(
    work: Callable[[Any], Any],  # picklable, as are its results
    items: Sequence[Any],
    workers: int | None = None,  # processes; None: one per core that this process may use; 1: no other process
) -> Generator[Any, None, None]:
    """work(item) for every item, in order: chunk k is worker k mod workers' to do.

    Few chunks are under way at a time, so memory stays bounded. Closing the iterator, an exception or Ctrl-C ends the
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
            raise SganError(
                "A worker process died, most likely for want of memory.", hint="Try fewer --workers."
            ) from e


@contextlib.contextmanager
def _team(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[list[Connection]]:
    """A pipe to each of so many processes, which end with the block."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    team: list[tuple[Connection, BaseProcess]] = []
    try:
        with _interrupts_held():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, work, items), daemon=True)
                process.start()
                theirs.close()  # so that a pipe ends when its process does
                team.append((ours, process))
        yield [pipe for pipe, _ in team]
    finally:
        for pipe, process in team:
            process.kill()  # it holds nothing that would be lost
            process.join()
            pipe.close()


def _serve(pipe: Connection, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """In a worker process: answer chunk numbers with results, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            start = pipe.recv() * _CHUNK
            try:
                result: Any = [work(item) for item in items[start : start + _CHUNK]]
            except Exception as e:
                result = e
            pipe.send(result)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits while processes are forked: what it raises in Python's own hooks around a fork would be lost."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield  # not ours to handle
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
