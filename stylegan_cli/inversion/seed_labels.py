"""What is known of seeds: each attribute's value, told by a classifier of their images or by a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SganError, nearest

_WORDS = 10  # a column of numbers with more than so many distinct ones is split at its median


@dataclass(frozen=True)
class SeedLabels:
    """One attribute of N seeds."""

    name: str
    values: tuple[str, ...]
    shares: Tensor  # [N, values] float64: how sure each value is, 0 to 1

    def hard(self) -> Tensor:  # [N, values] float64, 0 or 1
        """The surest value alone."""
        return torch.nn.functional.one_hot(self.shares.argmax(1), len(self.values)).double()

    def direction_name(self, k: int) -> str:
        """'hat=tall', or of a split column of numbers 'age>40'."""
        value = self.values[k]
        return f"{self.name}{'' if value.startswith('>') else '='}{value}"


def read_table(
    path: str | Path,
    wanted: Sequence[str] | None = None,  # columns that must be there
) -> tuple[list[int], list[SeedLabels]]:
    """A CSV file with a column `seed` and one for each attribute: words, or numbers.

    Of a column with more than ten distinct numbers the two labels are its upper and lower half. Raises SganError if the
    file cannot be read, or has empty places, other seeds than whole numbers, or one of them twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            rows = [[cell.strip() for cell in row] for row in csv.reader(f) if row]
    except OSError as e:
        raise SganError(f"{path} cannot be read: {e.strerror or e}.") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise SganError(f"{path} is no CSV file.") from e
    head, body = (rows[0], rows[1:]) if rows else ([], [])
    if "seed" not in head or len(set(head)) < max(len(head), 2) or not body:
        raise SganError(f"{path} has no table with a column `seed` and one for each attribute.")
    for number, row in enumerate(body, 2):
        if len(row) != len(head) or not all(row):
            raise SganError(f"Row {number} of {path} has empty places, or not {len(head)} of them.")
    columns = dict(zip(head, zip(*body, strict=True), strict=True))
    seeds = _seeds(columns.pop("seed"), path)
    for name in wanted or ():
        if name not in columns:
            hint = nearest(name, columns) or f"Choose from {', '.join(columns)}."
            raise SganError(f"{path} has no column {name!r}.", hint=hint)
    return seeds, [_labels(name, columns[name], path) for name in columns]


def _seeds(cells: Sequence[str], path: str | Path) -> list[int]:
    good = [cell.isascii() and cell.isdecimal() and int(cell) < 2**32 for cell in cells]
    if not all(good):
        raise SganError(f"{path} has seeds that are none: {cells[good.index(False)]!r} for one.")
    seeds = [int(cell) for cell in cells]
    if len(set(seeds)) < len(seeds):
        raise SganError(f"{path} names a seed twice.")
    return seeds


def _labels(name: str, cells: Sequence[str], path: str | Path) -> SeedLabels:
    numbers = _numbers(cells)
    if numbers is not None and len(set(numbers)) > _WORDS:
        middle = sorted(numbers)[(len(numbers) - 1) // 2]
        above = torch.tensor([number > middle for number in numbers])
        return SeedLabels(name, (f"<={middle:g}", f">{middle:g}"), torch.stack([~above, above], 1).double())
    values = tuple(sorted(set(cells)))
    if len(values) < 2 or len(values) * 2 > len(cells):
        raise SganError(f"The column {name!r} of {path} does not sort the seeds into two or more kinds.")
    place = torch.tensor([values.index(cell) for cell in cells])
    return SeedLabels(name, values, torch.nn.functional.one_hot(place, len(values)).double())


def _numbers(cells: Sequence[str]) -> list[float] | None:
    """None if some are no numbers."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
