"""The one kind of exception that a user is meant to read, and what it often says."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class SganError(Exception):
    """A mistake or a bad input, told in one sentence.

    ``hint`` is the command or the value that mends it; the command line prints it on a line of its own.
    """

    def __init__(
        self,
        message: str,  # one sentence: what is wrong, with the name of the file or the option
        hint: str | None = None,  # what to type or to change
    ):
        super().__init__(message)
        self.hint = hint


class MisuseError(SganError):
    """A command line, or a request, that is wrong by itself, whatever the files contain. Exit code 2, as Click's."""


def nearest(
    name: str,  # that there is not
    known: Iterable[str],
    shown: Callable[[str], object] = str,  # how a known one is written
) -> str:  # 'Did you mean cat?'; empty if none is like it
    """The hint for a name that is misspelt."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"Did you mean {shown(near[0])}?" if near else ""
