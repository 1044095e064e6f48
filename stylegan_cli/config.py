"""Image sizes, and configurations: frozen dataclasses that are saved as JSON."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from .errors import FieldError, MisuseError, SganError

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


# ---------------------------------------------------------------------------------------------- sizes


def base_size(
    height: int,
    width: int,
    min_halvings: int = 1,
) -> tuple[int, int, int]:
    """Split an image size into (h0, w0, n) with height = h0 * 2^n and width = w0 * 2^n.

    n is the largest number that leaves the shorter base side at 3 or more; the longer one must then be at most 16.
    256 x 256 is 4 x 4 * 2^6, 384 x 512 is 3 x 4 * 2^7, 24 x 48 is 3 x 6 * 2^3.
    Raises SganError with the nearest valid sizes.
    """
    n = _split(height, width)
    if n is None or n < min_halvings:
        sizes = ", ".join(f"{h}x{w}" for h, w in nearest_sizes(height, width))
        raise SganError(
            f"The size {height}x{width} (height x width) cannot be halved repeatedly to a base of 3 to 16 pixels.",
            hint=f"The nearest sizes are {sizes}.",
        )
    return height >> n, width >> n, n


def check_size(
    height: int,
    width: int,
) -> None:
    """Check a size that the user chose. Raises MisuseError where `base_size` raises SganError."""
    try:
        base_size(height, width)
    except SganError as e:
        raise MisuseError(str(e), hint=e.hint) from e


def level_of(
    height: int,
    width: int,
) -> int:
    """The nominal level 4 * 2^k of an image size. Raises SganError as `base_size` does."""
    return 4 << base_size(height, width, 0)[2]


def levels_of(
    height: int,
    width: int,
    start: int,  # lowest level, 4 * 2^k
) -> list[int]:
    """The levels of a network that grows to an image size. Raises MisuseError if there is no such lowest level."""
    levels = [4 << k for k in range(base_size(height, width)[2] + 1)]
    if start not in levels:
        raise MisuseError(
            f"Growing cannot start at level {start}: images of {height}x{width} have the levels "
            f"{', '.join(map(str, levels))}.",
            hint=f"Use --grow-from {levels[0]}, or another of these levels.",
        )
    return levels[levels.index(start) :]


def nearest_sizes(
    height: int,
    width: int,
) -> list[tuple[int, int]]:
    """The three sizes (height, width) closest to the given one that `base_size` accepts, closest first; of the same
    proportions if there are any."""
    sizes = set()
    for h0 in range(3, 17):
        for w0 in range(3, 17):
            for n in range(1, 12):
                h, w = h0 << n, w0 << n
                if _split(h, w) == n and h <= 2 * max(height, 8) and w <= 2 * max(width, 8):
                    sizes.add((h, w))
    similar = {(h, w) for h, w in sizes if h * width == w * height}
    return sorted(similar or sizes, key=lambda s: (abs(s[0] - height) + abs(s[1] - width), s))[:3]


def _split(height: int, width: int) -> int | None:
    if height < 3 or width < 3:
        return None
    n = 0
    while height % (2 << n) == 0 and width % (2 << n) == 0 and min(height, width) >> (n + 1) >= 3:
        n += 1
    return n if max(height, width) >> n <= 16 else None


# ----------------------------------------------------------------------------------------------- JSON


def check_choice(
    name: str,  # for the message
    value: Any,
    allowed: tuple,
) -> None:
    """Raise SganError if the value is not allowed."""
    if value not in allowed:
        raise SganError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}.")


def check_range(
    config: Any,  # a configuration dataclass
    name: str,  # of a field: a number, or a tuple of numbers
    low: float = 0,
    high: float = math.inf,
) -> None:
    """Raise FieldError if a number is not finite or not from low to high."""
    value = getattr(config, name)
    if not all(math.isfinite(x) and low <= x <= high for x in (value if isinstance(value, tuple) else (value,))):
        limits = f"{low:g} or more" if low else "a number that is finite and not negative"
        raise FieldError(config, name, f"Use {limits if high == math.inf else f'a number from {low:g} to {high:g}'}.")


def to_json(
    config: Any,  # a configuration dataclass
) -> dict[str, Any]:
    """Convert a dataclass to plain JSON values; a generator's configuration gets the name of its family."""
    tag = {"family": config.family} if hasattr(config, "family") else {}
    return tag | {field.name: _to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return tuple(map(_to_json, value))
    return to_json(value) if dataclasses.is_dataclass(value) else copy.deepcopy(value)


def from_json(
    cls: type[T],  # the dataclass to build
    values: dict[str, Any],
    readers: Mapping[type, Callable[[Any], Any]] = MappingProxyType({}),  # functions that read fields of these types
) -> T:
    """The inverse of `to_json`. Raises SganError if a field is unknown, missing or of the wrong type."""
    if not isinstance(values, dict):
        raise SganError(f"{cls.__name__}: expected fields, found {type(values).__name__}.")
    hints = _type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(fields)):
        raise SganError(f"{cls.__name__}: unknown fields: {', '.join(unknown)}; was it written by a newer version?")
    try:
        return cls(**{k: _convert(hints[k], value, f"{cls.__name__}.{k}", readers) for k, value in values.items()})
    except TypeError as e:
        raise SganError(f"{cls.__name__}: {e}.") from e


_type_hints = functools.cache(typing.get_type_hints)  # cached: it evaluates the annotations on every call


def _convert(hint: Any, value: Any, name: str, readers: Mapping[type, Callable[[Any], Any]]) -> Any:
    if isinstance(hint, types.UnionType):  # T | None
        return None if value is None else _convert(typing.get_args(hint)[0], value, name, readers)
    if hint in readers:
        return readers[hint](value)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise SganError(f"{name}: expected a list, found {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], v, name, readers) for v in value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value, readers)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise SganError(f"{name}: expected {hint.__name__}, found {value!r}.")
    return value
