"""Progress bars on stderr."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(
    quiet: bool,  # no bars
    leave: bool | None = None,  # keep complete bars; None: only those that are not nested in another
) -> contextlib.AbstractContextManager[Progress]:
    """Show a bar for each kind of progress, with its rate and the time left; none if stderr is not a terminal.

    The callback may be sent to another process, which then shows its own bars.
    """
    return contextlib.closing(Bars(quiet, leave))


class Bars:
    """The `Progress` callback of `bar`."""

    def __init__(self, quiet: bool, leave: bool | None = None):
        self.quiet, self.leave = quiet, leave
        self._bars: dict[str, tqdm] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.quiet:
            return
        from tqdm import tqdm  # imported late, so that helps are fast

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
