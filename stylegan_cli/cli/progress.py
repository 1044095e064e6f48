"""Bars on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..progress import Progress, silent


@contextlib.contextmanager
def bar(
    quiet: bool,
) -> Iterator[Progress]:
    """A bar for each thing that is counted, with rate and time left; none where stderr is no terminal."""
    from tqdm import tqdm  # here, so that a command's help does not wait for it

    bars: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(desc=what, total=total, leave=False, disable=None)
        bars[what].update(done - bars[what].n)
        if done >= total:
            bars.pop(what).close()

    try:
        yield silent if quiet else show
    finally:
        for shown in bars.values():
            shown.close()
