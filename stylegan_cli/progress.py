"""How far long work has come, told by a callback: who asked for the work decides how to show it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what, a short phrase such as "images"; how many are done; of how many


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""
