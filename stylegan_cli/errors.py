"""The exception whose message is meant for the user, and helpers for messages and hints."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class SganError(Exception):
    """A usage error or bad input, described in one sentence.

    ``hint`` says how to fix it; the command line prints it on its own line.
    """

    def __init__(
        self,
        message: str,  # what is wrong, with the name of the file or option
        hint: str | None = None,  # what to type or change
    ):
        super().__init__(message)
        self.hint = hint


class MisuseError(SganError):
    """A command line, or a request, that is wrong by itself, whatever the files contain. Exit code 2, as Click's."""


class FieldError(SganError):
    """A field of a configuration is out of range. Whoever knows the option that it comes from names that instead."""

    def __init__(
        self,
        config: object,
        field: str,
        hint: str,
    ):
        self.field, self.value = field, getattr(config, field)
        super().__init__(f"{type(config).__name__}: {field} is {self.value}.", hint)


def plural(count: int, noun: str) -> str:
    """The number and the noun: '1 image', '2 images'."""
    return f"{count} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def suggest(
    name: str,  # an unknown name
    known: Iterable[str],
    display: Callable[[str], object] = str,  # how to write a known name
) -> str:  # 'Did you mean cat?'; empty if no known name is similar
    """The hint for a misspelled name."""
    matches = difflib.get_close_matches(name, list(known), 1)
    return f"Did you mean {display(matches[0])}?" if matches else ""
