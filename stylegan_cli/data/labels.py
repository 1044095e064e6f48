"""dataset.json: the labels, the attributes and the record of how a set was made.

    {"labels": [["00000/img00000000.png", 3], ...] or null,
     "attributes": {"bodyVariant": ["bell", ...], ...},
     "sgan": {"source": ..., "version": ..., "size": [h, w], "crop": ..., "filter": ..., "classes": [...], ...}}

"labels" is the field's convention. "attributes" holds, per attribute, one value for each image in the order of
the sorted names. "sgan" says how the set was packed. Other programs ignore the last two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from ..errors import SganError
from .sources import first_three

MAX_CLASSES = 65536  # a larger class number is taken for a mistake


@dataclass(frozen=True)
class Record:
    """What dataset.json says. Every part may be empty."""

    labels: dict[str, Any] | None = None  # name of the image -> class number, one-hot list, or class name
    attributes: dict[str, list[str]] = field(default_factory=dict)  # per attribute, one value an image
    made: dict[str, Any] = field(default_factory=dict)  # how the set was made


def read_record(
    text: str | bytes | None,  # dataset.json; None if there is none
    where: str,  # for messages: the set or the file
    count: int | None = None,  # images in the set, to check the attributes against
) -> Record:
    """Parse dataset.json. Raises SganError if it is no JSON or of another form."""
    if text is None:
        return Record()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SganError(f"The labels of {where} are no JSON: {e}.") from e
    if isinstance(content, list):  # bare pairs
        content = {"labels": content}
    if not isinstance(content, dict):
        raise SganError(f"The labels of {where} have an unknown form; expected {{'labels': [[name, class], ...]}}.")
    if "labels" not in content and content and all(isinstance(v, (int, str)) for v in content.values()):
        content = {"labels": content}  # a bare mapping
    attributes, made = content.get("attributes") or {}, content.get("sgan") or {}
    if not _is_attributes(attributes) or not isinstance(made, dict):
        raise SganError(f"The attributes of {where} have an unknown form; expected {{name: [value, ...]}}.")
    for name, values in attributes.items():
        if count is not None and len(values) != count:
            raise SganError(f"The attribute {name!r} of {where} has {len(values)} values for {count} images.")
    return Record(_pairs(content.get("labels"), where), attributes, made)


def classes_of(
    labels: dict[str, Any],  # name -> class number, one-hot list or class name
    names: list[str],  # of the images; each must have a label, and each label an image
    where: str,  # for messages
    class_names: list[str] | None = None,  # where known, by class number
    hint: str | None = None,  # how to mend labels that do not match
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class number of every image, int64 [N], and the names of the classes.

    Raises SganError, naming the first offenders, for images without label, labels without image, and labels
    that are no classes.
    """
    if missing := [n for n in names if n not in labels]:
        raise SganError(f"{len(missing)} image(s) of {where} have no label: {first_three(missing)}.", hint=hint)
    known = set(names)
    if absent := [n for n in labels if n not in known]:
        raise SganError(f"{where} has labels for {len(absent)} absent file(s): {first_three(absent)}.", hint=hint)
    values = [labels[n] for n in names]
    if all(isinstance(v, str) for v in values):
        return classes_by_value(values)
    numbers = [k for v in values if (k := _class_number(v)) is not None]
    if len(numbers) < len(values):
        bad = [n for n, v in zip(names, values, strict=True) if _class_number(v) is None]
        raise SganError(
            f"{where} has labels that are neither class numbers nor one-hot: {first_three(bad)}.",
            hint="Only classes can be learnt, 0 and up; turn the values into classes first.",
        )
    width = max((len(v) for v in values if isinstance(v, list)), default=0)
    count = max(max(numbers) + 1, width, len(class_names or ()))
    named = list(class_names or ())
    return np.array(numbers, np.int64), tuple(named + [str(k) for k in range(len(named), count)])


def classes_by_value(
    values: list[str],  # one an image
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The sorted distinct values become classes: class number of every image, int64 [N], and the class names."""
    names = sorted(set(values))
    number = {v: k for k, v in enumerate(names)}
    return np.array([number[v] for v in values], np.int64), tuple(names)


def write_record(
    record: Record,
) -> str:
    """The text of dataset.json."""
    content: dict[str, Any] = {"labels": None if record.labels is None else [[n, v] for n, v in record.labels.items()]}
    if record.attributes:
        content["attributes"] = record.attributes
    return json.dumps({**content, "sgan": record.made}, ensure_ascii=False, separators=(",", ":"))


def _pairs(labels: Any, where: str) -> dict[str, Any] | None:
    if labels is None:
        return None
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    good = isinstance(pairs, list) and all(
        isinstance(p, (list, tuple))
        and len(p) == 2
        and isinstance(p[0], str)
        and isinstance(p[1], (int, float, str, list))
        for p in pairs
    )
    if not good:
        raise SganError(f"The labels of {where} have an unknown form; expected [[name, class], ...].")
    return {name.replace("\\", "/"): value for name, value in pairs} or None


def _is_attributes(attributes: Any) -> TypeGuard[dict[str, list[str]]]:
    return isinstance(attributes, dict) and all(
        isinstance(v, list) and all(isinstance(x, str) for x in v) for v in attributes.values()
    )


def _class_number(label: Any) -> int | None:
    """0 and up, from a number or a one-hot vector; None if it is neither."""
    if isinstance(label, (int, float)) and not isinstance(label, bool) and 0 <= label < MAX_CLASSES and label % 1 == 0:
        return int(label)
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        return label.index(1)
    return None
