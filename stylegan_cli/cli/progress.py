"""Progress as bars on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tqdm import tqdm

from ..progress import Progress, silent


@contextlib.contextmanager
def bar(
    quiet: bool,  # no bars
) -> Iterator[Progress]:
    """A bar for each thing that is counted, with its rate and the time left; none where stderr is no terminal."""
    bars: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        name, _, figure = what.partition(", ")
        if name not in bars:  # leave=None: a bar that began within another one goes when it is done
            bars[name] = tqdm(desc=name, initial=done, total=total, leave=None, disable=None)
        bars[name].set_postfix_str(figure, refresh=False)
        bars[name].update(done - bars[name].n)
        if done >= total:
            bars.pop(name).close()

    try:
        yield silent if quiet else show
    finally:
        for shown in bars.values():
            shown.close()
