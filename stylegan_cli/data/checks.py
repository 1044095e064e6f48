"""The checks of `open_dataset`: sizes, channels, labels and the content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ..errors import SganError, plural, suggest
from ..progress import Progress
from .codec import Header, ImageError, decode, ends_well
from .labels import DatasetJson, classes_by_value, classes_of
from .sources import FolderSource, ZipSource, first_three

T = TypeVar("T")
Classes = tuple[np.ndarray, tuple[str, ...]]  # class number of every image, int64 [N]; class names

REPACK = "`sgan data pack FOLDER OUT.zip` skips unreadable files and converts the rest to one format."


def common_header(source: FolderSource | ZipSource, where: str, max_pixels: int, progress: Progress) -> Header:
    """Return the size and channels that all images share.

    Raises SganError that names the images that differ or cannot be read.
    """
    headers = check_each(source.names, lambda n: source.header(n, max_pixels), where, progress)
    for what, describe in (("size", lambda h: f"{h.width} x {h.height}"), ("channels", lambda h: str(h.channels))):
        groups: dict[str, list[str]] = {}
        for name, h in zip(source.names, headers, strict=True):
            groups.setdefault(describe(h), []).append(name)
        if len(groups) > 1:
            common = max(groups, key=lambda k: len(groups[k]))
            others = [f"{n} ({k})" for k, names in groups.items() if k != common for n in names]
            option = "--size N" if what == "size" else "--channels 3"
            raise SganError(
                f"The images of {where} differ in {what}: most have {common}, but not {first_three(others)}.",
                hint=f"`sgan data pack {where} OUT.zip {option}` makes them alike.",
            )
    pngs = [n for n in source.names if n.lower().endswith(".png")]
    check_each(pngs, lambda n: _check_end(source, n), where, progress)
    return headers[0]


def _check_end(source: FolderSource | ZipSource, name: str) -> None:
    if not ends_well(source.tail(name)):
        decode(source.read(name))


def check_each(names: Sequence[str], work: Callable[[str], T], where: str, progress: Progress) -> list[T]:
    """Call ``work`` on every name. Raises SganError that names the first three for which it raises ImageError."""
    results: list[T] = []
    unreadable: list[str] = []
    for i, name in enumerate(names, 1):
        try:
            results.append(work(name))
        except ImageError as e:
            unreadable.append(f"{name} ({e})")
        progress("checking", i, len(names))
    if unreadable:
        raise SganError(
            f"{where} has {plural(len(unreadable), 'unreadable image')}: {first_three(unreadable)}.", hint=REPACK
        )
    return results


def stored_classes(dataset_json: DatasetJson, names: list[str], where: str) -> Classes | None:
    """Return the labels of dataset.json, which must match the images even if they are not used."""
    if dataset_json.labels is None:
        return None
    class_names = dataset_json.provenance.get("classes")
    hint = f"`sgan data pack {where} OUT.zip --labels none` drops the labels."
    return classes_of(dataset_json.labels, names, where, class_names if isinstance(class_names, list) else None, hint)


def class_counts(classes: Classes | None) -> dict[str, int]:
    if classes is None:
        return {}
    return dict(zip(classes[1], np.bincount(classes[0], minlength=len(classes[1])).tolist(), strict=True))


def chosen_classes(
    dataset_json: DatasetJson, stored: Classes | None, label: str | None, where: str
) -> tuple[np.ndarray | None, tuple]:
    """Return class numbers and class names for the `label` option of `open_dataset`."""
    if label is None:
        return None, ()
    if label == "labels":
        if stored is None:
            raise SganError(f"{where} has no labels.", hint=_attribute_hint(dataset_json))
        return stored
    if label not in dataset_json.attributes:
        hint = suggest(label, dataset_json.attributes) or _attribute_hint(dataset_json)
        raise SganError(f"{where} has no attribute {label!r}.", hint=hint)
    return classes_by_value(dataset_json.attributes[label])


def _attribute_hint(dataset_json: DatasetJson) -> str:
    if dataset_json.attributes:
        return "Its attributes can serve as labels: " + ", ".join(dataset_json.attributes) + "."
    return "`sgan data pack FOLDER OUT.zip --labels folders` makes each subfolder a class."


def check_size(
    stored: tuple[int, int],  # (height, width)
    size: tuple[int, int],  # size to read at
    where: str,
) -> None:
    """Raise SganError if the size is larger than stored, or has a different aspect ratio."""
    text = f"The images of {where} are {stored[0]}x{stored[1]} (height x width)"
    if size[0] > stored[0] or size[1] > stored[1]:
        raise SganError(
            f"{text} and cannot be enlarged to {size[0]}x{size[1]} on reading.", hint="Choose a smaller --size."
        )
    if size[0] * stored[1] != size[1] * stored[0]:
        raise SganError(
            f"{text}, which is not the aspect ratio of {size[0]}x{size[1]}.",
            hint=f"`sgan data pack {where} OUT.zip --size {size[0]}x{size[1]}` crops them to it.",
        )


def content_hash(source: FolderSource | ZipSource, dataset_json: DatasetJson, progress: Progress) -> str:
    digest = hashlib.sha256()
    for i, name in enumerate(source.names, 1):
        crc, length = source.checksum(name)
        digest.update(f"{name}\0{crc:08x}\0{length}\n".encode("utf-8", "surrogateescape"))
        progress("hashing", i, len(source.names))
    digest.update(json.dumps([dataset_json.labels, dataset_json.attributes], sort_keys=True).encode())
    return digest.hexdigest()
