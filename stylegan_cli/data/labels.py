"""dataset.json: labels, attributes and provenance of a dataset.

    {"labels": [["00000/img00000000.png", 3], ...] or null,
     "attributes": {"bodyVariant": ["bell", ...], ...},
     "sgan": {"source": ..., "version": ..., "size": [h, w], "crop": ..., "filter": ..., "classes": [...], ...}}

"labels" is what other programs read. "attributes" has one value per image for each attribute, in the order of the
sorted names. "sgan" says how the dataset was made. Other programs ignore the last two.

What is wrong with labels or attributes matters only where they are used: parsing does not refuse it.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from ..errors import SganError, plural, printable
from .listing import DATASET_JSON, duplicates, first_three, normalized

MAX_CLASSES = 65536  # larger class numbers are taken for a mistake
_SAMPLED_NUMBERS = 4096  # of label vectors that are saved with a model


@dataclass(frozen=True)
class DatasetJson:
    """Content of a dataset.json. Every part may be empty."""

    labels: dict[str, Any] | None = None  # image name -> label, see `labels_of`
    attributes: dict[str, list[str]] = field(default_factory=dict)  # by name: one value per image
    provenance: dict[str, Any] = field(default_factory=dict)  # how the dataset was made
    duplicates: tuple[str, ...] = ()  # names that have more than one label

    @property
    def names(self) -> list[str] | None:
        """The names of the classes or of the numbers of a label, if they are known."""
        names = self.provenance.get("classes")
        return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None


@dataclass(frozen=True)
class Labels:
    """The labels of N images: classes, or vectors of numbers."""

    names: tuple[str, ...]  # of the classes, or of the numbers of a vector, with escapes for what is not text
    values: np.ndarray  # int64 [N] class numbers, or float64 [N, c_dim] vectors

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(map(printable, self.names)))

    @property
    def are_vectors(self) -> bool:
        return self.values.ndim == 2

    def some_vectors(self) -> tuple[tuple[float, ...], ...]:
        """Return the vectors of evenly spaced images, for a model that has to make up labels; () for classes."""
        if not self.are_vectors:
            return ()
        count = min(len(self.values), max(16, _SAMPLED_NUMBERS // len(self.names)))
        index = np.linspace(0, len(self.values) - 1, count).round().astype(np.int64)
        return tuple(tuple(row) for row in self.values[index].astype(np.float32).tolist())


def parse_dataset_json(
    text: str | bytes | None,  # content of the file; None if there is none
    where: str,  # path of the dataset or file, for messages
    top: str = "",  # 'folder/' that the names in it are relative to
    names: Iterable[str] = (),  # of the images: macOS and other systems compose accented letters differently
) -> DatasetJson:
    """Parse dataset.json. Raises SganError if it is not JSON or has an unknown form."""
    if text is None:
        return DatasetJson()
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as e:
        raise SganError(f"The labels of {where} are not valid JSON: {e}.") from e
    if isinstance(content, list):  # bare pairs
        content = {"labels": content}
    if not isinstance(content, dict):
        raise SganError(f"The labels of {where} have an unknown form; expected {{'labels': [[name, class], ...]}}.")
    if content and not content.keys() & {"labels", "attributes", "sgan"}:
        content = {"labels": content}  # a bare mapping
    attributes, provenance = content.get("attributes") or {}, content.get("sgan") or {}
    for part in (content, attributes):
        if twice := getattr(part, "duplicates", None):
            raise SganError(f"{DATASET_JSON} of {where} has more than one {twice[0]!r}.")
    if not _is_attributes(attributes) or not isinstance(provenance, dict):
        raise SganError(f"The attributes of {where} have an unknown form; expected {{name: [value, ...]}}.")
    labels, twice = _pairs(content.get("labels"), where, _renaming(top, names))
    return DatasetJson(labels, attributes, provenance, twice)


def labels_of(
    content: DatasetJson,
    names: list[str],  # image names; each must have a label
    where: str,  # path, for messages
    hint: str | None = None,  # hint of the error if labels do not match
) -> Labels:
    """Return the labels of these images; those of other images do not matter.

    Class numbers and one-hot vectors are classes, and so are words. Vectors of numbers, numbers that are not whole, and
    lists of words (several classes of one image) are vectors. Raises SganError that names the first images without a
    label, or with one that is none of these, and names with more than one label.
    """
    labels = content.labels or {}
    if twice := [n for n in content.duplicates if n in set(names)]:
        raise SganError(f"{where} has more than one label for {first_three(twice)}.", hint=hint)
    if missing := [n for n in names if labels.get(n) is None]:
        raise SganError(f"{where} has no label for {plural(len(missing), 'image')}: {first_three(missing)}.", hint=hint)
    values = [labels[n] for n in names]
    if all(isinstance(v, str) for v in values):
        return classes_by_value(values)
    known = content.names or []
    if all(isinstance(v, list) for v in values) and all(isinstance(x, str) for v in values for x in v) and any(values):
        return _tags(values, known)
    if all(isinstance(v, list) and len(v) == 1 and not isinstance(v[0], list) for v in values) and any(
        v != [1] for v in values
    ):
        values = [v[0] for v in values]  # [N, 1]
    numbers = [k for v in values if (k := _class_number(v)) is not None]
    if len(numbers) == len(values):
        width = max((len(v) for v in values if isinstance(v, list)), default=0)
        return Labels(_all_names(known, max(max(numbers) + 1, width)), np.array(numbers, np.int64))
    vectors = [v if isinstance(v, list) else [v] for v in values]
    is_whole = all(isinstance(v, (int, float)) and v % 1 == 0 for v in values)  # class numbers out of range
    if is_whole or len({len(v) for v in vectors}) > 1 or not all(map(_is_vector, vectors)):
        invalid = [n for n, v in zip(names, values) if _class_number(v) is None and (is_whole or not _is_vector(v))]
        raise SganError(
            f"{where} has labels that are neither class numbers, class names nor vectors of one length: "
            f"{first_three(invalid or names)}.",
            hint=hint or "Convert them to classes first, numbered from 0.",
        )
    return Labels(_all_names(known, len(vectors[0]))[: len(vectors[0])], np.array(vectors, np.float64))


def classes_by_value(
    values: list[str],  # one per image
    names: tuple[str, ...] = (),  # class names by number, if they are known and complete; else they are sorted
) -> Labels:
    """Make each distinct value a class."""
    names = names if set(values) <= set(names) else tuple(sorted(set(values), key=natural_order))
    number = {v: k for k, v in enumerate(names)}
    return Labels(names, np.array([number[v] for v in values], np.int64))


def natural_order(
    name: str,
) -> tuple:
    """Sort key: numbers by value, before words; digits within words count as numbers, so that a2 precedes a10."""
    is_number = re.fullmatch(r"[+-]?\d+(\.\d+)?", name)
    parts = re.split(r"(\d+)", name)
    return not is_number, float(name) if is_number else 0.0, [*map(_digits, parts)], name


def format_dataset_json(
    content: DatasetJson,
) -> str:
    """Format the text of a dataset.json."""
    labels = None if content.labels is None else [[n, v] for n, v in content.labels.items()]
    tree: dict[str, Any] = {"labels": labels}
    if content.attributes:
        tree["attributes"] = content.attributes
    return json.dumps({**tree, "sgan": content.provenance}, ensure_ascii=False, separators=(",", ":"))


class _Pairs(dict):
    """A JSON object that remembers which of its keys occur more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.duplicates = duplicates(key for key, _ in pairs) if len(self) < len(pairs) else []


def _pairs(labels: Any, where: str, rename: Callable[[str], str]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return the labels by name, and the names that have more than one."""
    if labels is None:
        return None, ()
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list) or not all(
        isinstance(p, (list, tuple)) and len(p) == 2 and isinstance(p[0], str) for p in pairs
    ):
        raise SganError(f"The labels of {where} have an unknown form; expected [[name, class], ...].")
    named = [(rename(name), value) for name, value in pairs]
    twice = [rename(name) for name in getattr(labels, "duplicates", ())]
    return dict(named) or None, (*twice, *duplicates(name for name, _ in named))


def _renaming(top: str, names: Iterable[str]) -> Callable[[str], str]:
    """Return the function from names in dataset.json to names of images."""
    given = set(names)
    composed = {unicodedata.normalize("NFC", n): n for n in given if not n.isascii()}

    def rename(name: str) -> str:
        name = normalized(name)
        name = name if name.startswith(top) else top + name
        return name if name in given else composed.get(unicodedata.normalize("NFC", name), name)

    return rename


def _is_attributes(attributes: Any) -> TypeGuard[dict[str, list[str]]]:
    return isinstance(attributes, dict) and all(
        isinstance(v, list) and all(isinstance(x, str) for x in v) for v in attributes.values()
    )


def _class_number(label: Any) -> int | None:
    """Class number from a number or a one-hot vector; None if it is neither."""
    if isinstance(label, (int, float)) and not isinstance(label, bool) and 0 <= label < MAX_CLASSES and label % 1 == 0:
        return int(label)
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        return label.index(1)
    return None


def _is_vector(label: Any) -> bool:
    numbers = label if isinstance(label, list) else [label]
    return 0 < len(numbers) <= MAX_CLASSES and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in numbers
    )


def _tags(values: list[list[str]], known: list[str]) -> Labels:
    """Make a 0 or 1 for each word of lists of words."""
    names = (
        known
        if {x for v in values for x in v} <= set(known)
        else classes_by_value([x for v in values for x in v]).names
    )
    return Labels(tuple(names), np.array([[x in v for x in names] for v in values], np.float64))


def _all_names(known: list[str], count: int) -> tuple[str, ...]:
    return tuple(known + [str(k) for k in range(len(known), count)])


def _digits(part: str) -> tuple[int, str]:
    digits = part.lstrip("0")  # compared by length first: int() refuses thousands of digits
    return (len(digits), digits) if part.isdecimal() else (0, part)
