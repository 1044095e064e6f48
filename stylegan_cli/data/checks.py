"""What `open_dataset` finds out about a set, and what it refuses: sizes, channels, labels, the content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ..errors import SganError, nearest
from ..progress import Progress
from .codec import Header, ImageError, decode, ends_well
from .labels import Record, classes_by_value, classes_of
from .sources import FolderSource, ZipSource, first_three

T = TypeVar("T")
Classes = tuple[np.ndarray, tuple[str, ...]]  # class number of every image, int64 [N]; class names

REPACK = "`sgan data pack FOLDER OUT.zip` leaves out what cannot be read and brings the rest to one form."


def common_header(source: FolderSource | ZipSource, where: str, max_pixels: int, progress: Progress) -> Header:
    """The size and channels that all images share. Raises SganError, naming those that differ or cannot be read."""
    headers = check_each(source.names, lambda n: source.header(n, max_pixels), where, progress)
    for what, of in (("size", lambda h: f"{h.width} x {h.height}"), ("channels", lambda h: str(h.channels))):
        kinds: dict[str, list[str]] = {}
        for name, h in zip(source.names, headers, strict=True):
            kinds.setdefault(of(h), []).append(name)
        if len(kinds) > 1:
            common = max(kinds, key=lambda k: len(kinds[k]))
            odd = [f"{n} ({k})" for k, names in kinds.items() if k != common for n in names]
            mend = "--size N" if what == "size" else "--channels 3"
            raise SganError(
                f"The images of {where} differ in {what}: most have {common}, but not {first_three(odd)}.",
                hint=f"`sgan data pack {where} OUT.zip {mend}` brings them to one form.",
            )
    pngs = [n for n in source.names if n.lower().endswith(".png")]
    check_each(pngs, lambda n: _check_end(source, n), where, progress)
    return headers[0]


def _check_end(source: FolderSource | ZipSource, name: str) -> None:
    if not ends_well(source.tail(name)):
        decode(source.read(name))


def check_each(names: Sequence[str], work: Callable[[str], T], where: str, progress: Progress) -> list[T]:
    """``work`` on every name; if any raise ImageError, a SganError names the first three."""
    results: list[T] = []
    bad: list[str] = []
    for i, name in enumerate(names, 1):
        try:
            results.append(work(name))
        except ImageError as e:
            bad.append(f"{name} ({e})")
        progress("checking", i, len(names))
    if bad:
        raise SganError(f"{len(bad)} image(s) of {where} cannot be read: {first_three(bad)}.", hint=REPACK)
    return results


def stored_classes(record: Record, names: list[str], where: str) -> Classes | None:
    """What dataset.json says, which must fit the images even where labels are not used."""
    if record.labels is None:
        return None
    known = record.made.get("classes")
    hint = f"`sgan data pack {where} OUT.zip --labels none` drops the labels."
    return classes_of(record.labels, names, where, known if isinstance(known, list) else None, hint)


def class_counts(classes: Classes | None) -> dict[str, int]:
    if classes is None:
        return {}
    return dict(zip(classes[1], np.bincount(classes[0], minlength=len(classes[1])).tolist(), strict=True))


def chosen_classes(
    record: Record, stored: Classes | None, label: str | None, where: str
) -> tuple[np.ndarray | None, tuple]:
    """The classes that are asked for."""
    if label is None:
        return None, ()
    if label == "labels":
        if stored is None:
            raise SganError(f"{where} has no labels.", hint=_attribute_hint(record))
        return stored
    if label not in record.attributes:
        hint = nearest(label, record.attributes) or _attribute_hint(record)
        raise SganError(f"{where} has no attribute {label!r}.", hint=hint)
    return classes_by_value(record.attributes[label])


def _attribute_hint(record: Record) -> str:
    if record.attributes:
        return "Its attributes can be labels: " + ", ".join(record.attributes) + "."
    return "`sgan data pack FOLDER OUT.zip --labels folders` makes a class of each sub-folder."


def check_size(
    stored: tuple[int, int],  # (height, width)
    size: tuple[int, int],  # to read at
    where: str,
) -> None:
    """Raises SganError for a size that is larger, or of another shape."""
    text = f"{where} holds images of {stored[0]}x{stored[1]} (height x width)"
    if size[0] > stored[0] or size[1] > stored[1]:
        raise SganError(f"{text}; they cannot be read larger, at {size[0]}x{size[1]}.", hint="Choose a smaller --size.")
    if size[0] * stored[1] != size[1] * stored[0]:
        raise SganError(
            f"{text}; a size of {size[0]}x{size[1]} has another shape.",
            hint=f"`sgan data pack {where} OUT.zip --size {size[0]}x{size[1]}` crops them to it.",
        )


def content_hash(source: FolderSource | ZipSource, record: Record, progress: Progress) -> str:
    digest = hashlib.sha256()
    for i, name in enumerate(source.names, 1):
        crc, length = source.checksum(name)
        digest.update(f"{name}\0{crc:08x}\0{length}\n".encode("utf-8", "surrogateescape"))
        progress("hashing", i, len(source.names))
    digest.update(json.dumps([record.labels, record.attributes], sort_keys=True).encode())
    return digest.hexdigest()
