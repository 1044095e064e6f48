"""dataset.json: labels, attributes and provenance of a dataset.

    {"labels": [["00000/img00000000.png", 3], ...] or null,
     "attributes": {"bodyVariant": ["bell", ...], ...},
     "sgan": {"source": ..., "version": ..., "size": [h, w], "crop": ..., "filter": ..., "classes": [...], ...}}

"labels" is what other programs read. "attributes" has one value per image for each attribute, in the order of the
sorted names. "sgan" says how the dataset was made. Other programs ignore the last two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from ..errors import SganError, plural
from .sources import first_three

MAX_CLASSES = 65536  # larger class numbers are taken for a mistake


@dataclass(frozen=True)
class DatasetJson:
    """Content of a dataset.json. Every part may be empty."""

    labels: dict[str, Any] | None = None  # image name -> class number, one-hot list, or class name
    attributes: dict[str, list[str]] = field(default_factory=dict)  # by name: one value per image
    provenance: dict[str, Any] = field(default_factory=dict)  # how the dataset was made


def parse_dataset_json(
    text: str | bytes | None,  # content of the file; None if there is none
    where: str,  # path of the dataset or file, for messages
    count: int | None = None,  # number of images, to check the attributes against
) -> DatasetJson:
    """Parse dataset.json. Raises SganError if it is not JSON or has an unknown form."""
    if text is None:
        return DatasetJson()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SganError(f"The labels of {where} are not valid JSON: {e}.") from e
    if isinstance(content, list):  # bare pairs
        content = {"labels": content}
    if not isinstance(content, dict):
        raise SganError(f"The labels of {where} have an unknown form; expected {{'labels': [[name, class], ...]}}.")
    if "labels" not in content and content and all(isinstance(v, (int, str)) for v in content.values()):
        content = {"labels": content}  # a bare mapping
    attributes, provenance = content.get("attributes") or {}, content.get("sgan") or {}
    if not _is_attributes(attributes) or not isinstance(provenance, dict):
        raise SganError(f"The attributes of {where} have an unknown form; expected {{name: [value, ...]}}.")
    for name, values in attributes.items():
        if count is not None and len(values) != count:
            raise SganError(f"The attribute {name!r} of {where} has {len(values)} values for {count} images.")
    return DatasetJson(_pairs(content.get("labels"), where), attributes, provenance)


def classes_of(
    labels: dict[str, Any],  # image name -> class number, one-hot list or class name
    names: list[str],  # image names; each must have a label, and each label an image
    where: str,  # path, for messages
    class_names: list[str] | None = None,  # by class number, if known
    hint: str | None = None,  # hint of the error if labels do not match
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class number of every image, int64 [N], and the names of the classes.

    Raises SganError that names the first images without a label, labels without an image, or labels that are not
    classes.
    """
    if missing := [n for n in names if n not in labels]:
        raise SganError(f"{where} has no label for {plural(len(missing), 'image')}: {first_three(missing)}.", hint=hint)
    existing = set(names)
    if absent := [n for n in labels if n not in existing]:
        raise SganError(
            f"{where} has labels for {plural(len(absent), 'missing file')}: {first_three(absent)}.", hint=hint
        )
    values = [labels[n] for n in names]
    if all(isinstance(v, str) for v in values):
        return classes_by_value(values)
    numbers = [k for v in values if (k := _class_number(v)) is not None]
    if len(numbers) < len(values):
        invalid = [n for n, v in zip(names, values, strict=True) if _class_number(v) is None]
        raise SganError(
            f"{where} has labels that are neither class numbers nor one-hot: {first_three(invalid)}.",
            hint="Convert them to classes first, numbered from 0.",
        )
    width = max((len(v) for v in values if isinstance(v, list)), default=0)
    count = max(max(numbers) + 1, width, len(class_names or ()))
    all_names = list(class_names or ())
    return np.array(numbers, np.int64), tuple(all_names + [str(k) for k in range(len(all_names), count)])


def classes_by_value(
    values: list[str],  # one per image
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make each distinct value a class: class number of every image, int64 [N], and the sorted class names."""
    names = sorted(set(values))
    number = {v: k for k, v in enumerate(names)}
    return np.array([number[v] for v in values], np.int64), tuple(names)


def format_dataset_json(
    content: DatasetJson,
) -> str:
    """Format the text of a dataset.json."""
    labels = None if content.labels is None else [[n, v] for n, v in content.labels.items()]
    tree: dict[str, Any] = {"labels": labels}
    if content.attributes:
        tree["attributes"] = content.attributes
    return json.dumps({**tree, "sgan": content.provenance}, ensure_ascii=False, separators=(",", ":"))


def _pairs(labels: Any, where: str) -> dict[str, Any] | None:
    if labels is None:
        return None
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    is_valid = isinstance(pairs, list) and all(
        isinstance(p, (list, tuple))
        and len(p) == 2
        and isinstance(p[0], str)
        and isinstance(p[1], (int, float, str, list))
        for p in pairs
    )
    if not is_valid:
        raise SganError(f"The labels of {where} have an unknown form; expected [[name, class], ...].")
    return {name.replace("\\", "/"): value for name, value in pairs} or None


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
