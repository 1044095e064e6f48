"""Progress of long work, reported through a callback, which commands show as a bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# A callback (what, done, total). `what` describes the items, "images"; a changing figure may follow after a comma:
# "steps, distance=0.0312".
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def track(items: Sequence[T], what: str, progress: Progress) -> Iterator[T]:
    """Yield the items, and report how many are done."""
    for done, item in enumerate(items):
        progress(what, done, len(items))
        yield item
    progress(what, len(items), len(items))


def bars_disabled() -> bool | None:
    """The argument `disable` of tqdm's bars that no callback shows, of downloads and builds: True with tqdm's own
    variable TQDM_DISABLE, which --quiet sets; None: only if stderr is not a terminal."""
    return True if os.environ.get("TQDM_DISABLE", "0") not in ("", "0") else None
