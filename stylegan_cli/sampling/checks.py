"""Checks of the fields of a request. An invalid value raises SganError with a hint about valid ones."""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import MisuseError
from .mixing import SPANS

Check = Callable[[str, Any], Any]  # name, value -> value, with NumPy scalars converted to Python numbers
LARGEST_SEED = 2**32 - 1


def check_fields(
    request: Any,  # a dataclass
    **checks: Check,  # by field name; None is valid where it is the default
) -> None:
    """Check fields in `__post_init__`. Raises SganError on the first invalid value."""
    for name, check in checks.items():
        value = getattr(request, name)
        if value is not None or getattr(type(request), name) is not None:
            object.__setattr__(request, name, check(name, value))  # the dataclass is frozen


def choice(*names: str) -> Check:
    """Require one of the names."""
    return _check(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def string() -> Check:
    """Require a string."""
    return _check(lambda value: isinstance(value, str), "a string")


def path() -> Check:
    """Require a path; the file itself is not checked."""
    return _check(lambda value: isinstance(value, (str, os.PathLike)), "a file name")


def flag() -> Check:
    """Require a Boolean."""
    return _check(lambda value: isinstance(value, bool), "True or False")


def integer(low: int | None = None, high: int | None = None) -> Check:
    """Require an integer within inclusive bounds."""
    return _check(lambda value: _is_within(value, Integral, low, high), f"an integer{_bounds(low, high)}")


def number(low: float | None = None, high: float | None = None) -> Check:
    """Require a finite number within inclusive bounds."""
    return _check(lambda value: _is_within(value, Real, low, high), f"a number{_bounds(low, high)}")


def list_of(
    check: Check,  # of each item
    example: str,  # a valid list, for the hint
    min_length: int = 1,
    max_length: int | None = None,
) -> Check:
    """Require a list, tuple, range or array, but not a string."""

    def is_valid(value: Any) -> bool:
        if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes)):
            return False
        try:
            return min_length <= len(value) <= (len(value) if max_length is None else max_length)
        except (TypeError, OverflowError):  # a 0-dimensional array; a range longer than any list
            return False

    check_list = _check(is_valid, f"a list such as {example}")

    def check_all(name: str, value: Any) -> Any:
        check_list(name, value)
        if isinstance(value, range):
            for end in {*value[:1], *value[-1:]}:
                check(f"An item of {name}", end)
            return value
        items = [check(f"An item of {name}", item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items

    return check_all


def seeds() -> Check:
    """Require a list of seeds."""
    return list_of(integer(0, LARGEST_SEED), "[0, 1, 2]")


def latents() -> Check:
    """Require a list of seeds and file names; the files themselves are not checked."""
    seed = integer(0, LARGEST_SEED)

    def seed_or_file(name: str, item: Any) -> Any:
        return os.fspath(item) if isinstance(item, (str, os.PathLike)) else seed(name, item)

    return list_of(seed_or_file, "[0, 1, 'projected.npz']")


def styles() -> Check:
    """Require a span of styles, or a list of w indices; whether the model has them is not checked."""
    span, indices = choice(*SPANS), list_of(integer(), "[0, 1, 2]")
    return lambda name, value: span(name, value) if isinstance(value, str) else indices(name, value)


def _check(is_valid: Callable[[Any], bool], valid_values: str) -> Check:
    def check(name: str, value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if not is_valid(value):
            raise MisuseError(f"{name} cannot be {reprlib.repr(value)}.", hint=f"Use {valid_values}.")
        return value

    return check


def _is_within(value: Any, number_type: type, low: float | None, high: float | None) -> bool:
    if not isinstance(value, number_type) or isinstance(value, bool):
        return False
    if number_type is Real and not abs(value) <= sys.float_info.max:  # NaN, infinity, or an integer too large for float
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None) -> str:
    if high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f", {low} or more"
