"""The exception whose message is meant for the user, and helpers for messages and hints."""

from __future__ import annotations

import contextlib
import difflib
import shlex
import unicodedata
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
        super().__init__(printable(message))
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


def printable(
    text: str,  # with names of files, classes or runs
) -> str:
    """Escape what is not text on one line: line breaks and other control characters, also those that change the
    direction of writing, and bytes of file names that are not UTF-8."""
    if text.isascii() and text.isprintable():
        return text
    with contextlib.suppress(UnicodeEncodeError):  # surrogates that stand for no byte, which JSON may contain
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if _is_text(c) else c.encode("unicode_escape").decode() for c in text)


def quote(
    path: object,
) -> str:
    """Write a path as a word of a command to copy; what is not text is escaped as bash and zsh read it."""
    text = str(path)
    if printable(text) == text:
        return shlex.quote(text)
    return "$'" + printable(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def _is_text(character: str) -> bool:
    category = unicodedata.category(character)
    joins = character in "\u200c\u200d"  # which emoji, Persian and Indian scripts need
    return joins or category not in ("Cc", "Cf", "Cs", "Zl", "Zp")


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
    return f"Did you mean {printable(str(display(matches[0])))}?" if matches else ""
