"""One model, many callers: only the one whose turn it is computes."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator

IMAGE, JOB = 0, 1  # ranks: an image that somebody waits for goes before a step of long work


class GaveUp(Exception):  # noqa: N818 (not an error)
    """The caller no longer wants the turn."""


class Turns:
    """A lock whose holders come in order of rank, then of arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []  # a heap of (rank, ticket)
        self._tickets = itertools.count()
        self._taken = False

    @contextlib.contextmanager
    def take(
        self,
        rank: int = IMAGE,
        gave_up: Callable[[], bool] = lambda: False,  # whether the caller no longer wants it; see `wake`
    ) -> Iterator[None]:
        """Wait for the turn, and keep it within the context. Raises GaveUp."""
        self._acquire(rank, gave_up)
        try:
            yield
        finally:
            self._release()

    def pass_on(self, rank: int = JOB) -> None:
        """Let the others of this rank or a lower one who wait go first, in the middle of one's own turn."""
        with self._changed:
            if not self._waiting or self._waiting[0][0] > rank:
                return
        self._release()
        self._acquire(rank)

    def wake(self) -> None:
        """Let those who wait look whether they still want the turn."""
        with self._changed:
            self._changed.notify_all()

    def _acquire(self, rank: int, gave_up: Callable[[], bool] = lambda: False) -> None:
        with self._changed:
            ticket = (rank, next(self._tickets))
            heapq.heappush(self._waiting, ticket)
            self._changed.wait_for(lambda: gave_up() or (not self._taken and self._waiting[0] == ticket))
            self._waiting.remove(ticket)
            heapq.heapify(self._waiting)
            if gave_up():
                self._changed.notify_all()
                raise GaveUp
            self._taken = True

    def _release(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()
