"""How long work says how far it has come: through a callback, which commands show as a bar."""

from __future__ import annotations

from collections.abc import Callable

# What is counted, how many are done, of how many. What is a short phrase, "images"; a figure that changes on the way
# may follow it after a comma: "steps, distance=0.0312".
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """For who does not want to know."""
