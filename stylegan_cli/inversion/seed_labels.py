"""Attributes of seeds, from a classifier of their images or from a table."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data.labels import natural_order
from ..errors import SganError, plural, suggest

_MAX_DISTINCT_NUMBERS = 10  # a column with more is split at its median


@dataclass(frozen=True)
class SeedLabels:
    """One attribute of N seeds."""

    name: str
    values: tuple[str, ...]
    probabilities: Tensor  # [N, values] float64: probability of each value

    def one_hot(self) -> Tensor:  # [N, values] float64, 0 or 1
        """Return the most probable value, one-hot."""
        return torch.nn.functional.one_hot(self.probabilities.argmax(1), len(self.values)).double()

    def direction_name(self, k: int) -> str:
        """Name the direction toward value k: 'hat=tall', or 'age>40' for a split column of numbers."""
        value = self.values[k]
        return f"{self.name}{'' if value.startswith('>') else '='}{value}"


def read_table(
    path: str | Path,
    required: Sequence[str] | None = None,  # columns that must exist
) -> tuple[list[int], list[SeedLabels]]:
    """Read a CSV file with a column `seed` and a column of words or numbers for each attribute.

    A column with more than ten distinct numbers is split into its lower and upper half. Raises SganError if the file
    cannot be read, has empty cells, or has invalid or duplicate seeds.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            rows = [[cell.strip() for cell in row] for row in csv.reader(f) if row]
    except OSError as e:
        raise SganError(f"{path} cannot be read: {e.strerror or e}.") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise SganError(f"{path} is not a CSV file.", hint="Save it as UTF-8 text with commas.") from e
    head, body = (rows[0], rows[1:]) if rows else ([], [])
    if "seed" not in head or len(set(head)) < max(len(head), 2) or not body:
        raise SganError(
            f"{path} is not a table of labels.", hint="Use a CSV file with a column `seed` and one for each attribute."
        )
    for number, row in enumerate(body, 2):
        if len(row) != len(head):
            message = f"Row {number} of {path} has {plural(len(row), 'cell')}; the header has {len(head)}."
            raise SganError(message, hint="Fill every cell.")
        if not all(row):
            raise SganError(f"Row {number} of {path} has an empty cell.", hint="Fill every cell.")
    columns = dict(zip(head, zip(*body, strict=True), strict=True))
    seeds = _seeds(columns.pop("seed"), path)
    for name in required or ():
        if name not in columns:
            hint = suggest(name, columns) or f"Choose from {', '.join(columns)}."
            raise SganError(f"{path} has no column {name!r}.", hint=hint)
    return seeds, [_labels(name, columns[name], path) for name in columns]


def _seeds(cells: Sequence[str], path: str | Path) -> list[int]:
    is_valid = [cell.isascii() and cell.isdecimal() and int(cell) < 2**32 for cell in cells]
    if not all(is_valid):
        invalid = cells[is_valid.index(False)]
        raise SganError(f"{path} contains the invalid seed {invalid!r}.", hint="Use integers from 0 to 4294967295.")
    seeds = [int(cell) for cell in cells]
    if repeated := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise SganError(f"{path} contains the seed {repeated[0]} more than once.", hint="Keep one row per seed.")
    return seeds


def _labels(name: str, cells: Sequence[str], path: str | Path) -> SeedLabels:
    numbers = _numbers(cells)
    if numbers is not None and len(set(numbers)) > _MAX_DISTINCT_NUMBERS:
        median = sorted(numbers)[(len(numbers) - 1) // 2]
        is_above = torch.tensor([number > median for number in numbers])
        probabilities = torch.stack([~is_above, is_above], 1).double()
        return SeedLabels(name, (f"<={median:g}", f">{median:g}"), probabilities)
    values = tuple(sorted(set(cells), key=natural_order))
    if len(values) < 2 or len(values) * 2 > len(cells):
        raise SganError(f"The column {name!r} of {path} does not divide the seeds into two or more groups.")
    index = torch.tensor([values.index(cell) for cell in cells])
    return SeedLabels(name, values, torch.nn.functional.one_hot(index, len(values)).double())


def _numbers(cells: Sequence[str]) -> list[float] | None:
    """Parse a column of finite numbers; None if it is not one."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
