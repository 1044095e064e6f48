"""Checks of the values that a request is made of. One that is wrong raises SganError, which says what to give."""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import SganError
from .mixing import SPANS

Check = Callable[[str, Any], Any]  # a name and a value -> the value, with numbers of NumPy as plain ones
LARGEST_SEED = 2**32 - 1


def check_fields(
    request: Any,  # a dataclass
    **checks: Check,  # of its fields, by name; None passes where it is the default
) -> None:
    """For `__post_init__`. Raises SganError on the first value that does not pass."""
    for name, check in checks.items():
        value = getattr(request, name)
        if value is not None or getattr(type(request), name) is not None:
            object.__setattr__(request, name, check(name, value))  # it is frozen


def choice(*words: str) -> Check:
    """One of a few words."""
    return _check(lambda value: isinstance(value, str) and value in words, f"one of {', '.join(words)}")


def string() -> Check:
    """Some text."""
    return _check(lambda value: isinstance(value, str), "a text")


def path() -> Check:
    """The name of a file: whether it can be read is seen when it is."""
    return _check(lambda value: isinstance(value, (str, os.PathLike)), "the name of a file")


def flag() -> Check:
    """Yes or no."""
    return _check(lambda value: isinstance(value, bool), "True or False")


def integer(least: int | None = None, most: int | None = None) -> Check:
    """A whole number."""
    return _check(lambda value: _within(value, Integral, least, most), f"a whole number{_bounds(least, most)}")


def number(least: float | None = None, most: float | None = None) -> Check:
    """A finite number."""
    return _check(lambda value: _within(value, Real, least, most), f"a number{_bounds(least, most)}")


def list_of(
    check: Check,  # of each item
    example: str,  # of what to give
    least: int = 1,  # items
    most: int | None = None,
) -> Check:
    """A list, a tuple, a range or an array; a text is none."""

    def fits(value: Any) -> bool:
        if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes)):
            return False
        try:
            return least <= len(value) <= (len(value) if most is None else most)
        except (TypeError, OverflowError):  # an array without sides; a range longer than any list
            return False

    is_list = _check(fits, f"a list such as {example}")

    def check_all(name: str, value: Any) -> Any:
        is_list(name, value)
        if isinstance(value, range):
            for end in {*value[:1], *value[-1:]}:
                check(f"An item of {name}", end)
            return value
        items = [check(f"An item of {name}", item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items

    return check_all


def seeds() -> Check:
    """A list of seeds."""
    return list_of(integer(0, LARGEST_SEED), "[0, 1, 2]")


def latents() -> Check:
    """A list of seeds and names of files: whether those can be read is seen when they are."""
    seed = integer(0, LARGEST_SEED)

    def seed_or_file(name: str, item: Any) -> Any:
        return os.fspath(item) if isinstance(item, (str, os.PathLike)) else seed(name, item)

    return list_of(seed_or_file, "[0, 1, 'projected.npz']")


def styles() -> Check:
    """A span of styles, or indices of w: whether the model has them is seen when it is there."""
    span, indices = choice(*SPANS), list_of(integer(), "[0, 1, 2]")
    return lambda name, value: span(name, value) if isinstance(value, str) else indices(name, value)


def _check(fits: Callable[[Any], bool], wanted: str) -> Check:
    def check(name: str, value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if not fits(value):
            raise SganError(f"{name} cannot be {reprlib.repr(value)}.", hint=f"Give {wanted}.")
        return value

    return check


def _within(value: Any, kind: type, least: float | None, most: float | None) -> bool:
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    if kind is Real and not abs(value) <= sys.float_info.max:  # nan, infinite, or whole and too large for a float
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if most is not None:
        return f" from {least} to {most}"
    return "" if least is None else f", {least} or more"
