"""Progress as bars on stderr."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(
    quiet: bool,  # no bars
    leave: bool | None = None,  # let bars stand when they are full; None: those that began within no other
) -> contextlib.AbstractContextManager[Progress]:
    """A bar for each thing that is counted, with its rate and the time left; none where stderr is no terminal.

    What it gives may go to another process, which then shows bars of its own.
    """
    return contextlib.closing(Bars(quiet, leave))


class Bars:
    """A `Progress`. See `bar`."""

    def __init__(self, quiet: bool, leave: bool | None = None):
        self.quiet, self.leave = quiet, leave
        self._bars: dict[str, tqdm] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.quiet:
            return
        from tqdm import tqdm  # here, so that a command's help does not wait for it

        name, _, figure = what.partition(", ")
        if name not in self._bars:
            self._bars[name] = tqdm(desc=name, initial=done, total=total, leave=self.leave, disable=None)
        self._bars[name].set_postfix_str(figure, refresh=False)
        self._bars[name].update(done - self._bars[name].n)
        if done >= total:
            self._bars.pop(name).close()

    def close(self) -> None:
        while self._bars:
            self._bars.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bars": {}}
