"""The checks of `open_dataset`: sizes, channels, labels and the content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..errors import SganError, plural, suggest
from ..progress import Progress
from .codec import Header, ImageError
from .formats import SUFFIXES
from .labels import DatasetJson, Labels, classes_by_value, labels_of, parse_dataset_json
from .listing import first_three
from .sources import Source

T = TypeVar("T")

OPAQUE = "All images are opaque, but have an alpha channel: `sgan data pack --channels 3` makes an RGB dataset of them."
REPACK = "`sgan data pack FOLDER OUT.zip` skips unreadable files and converts the rest to one format."


def common_header(source: Source, where: str, max_pixels: int, progress: Progress) -> Header:
    """Return the size and channels that all images share.

    Raises SganError that names the images that differ or cannot be read.
    """
    headers = check_each(source.names, lambda n: source.header(n, max_pixels), where, progress)
    for what, describe in (("size", lambda h: h.size_text), ("channels", lambda h: str(h.channels))):
        groups: dict[str, list[str]] = {}
        for name, h in zip(source.names, headers, strict=True):
            groups.setdefault(describe(h), []).append(name)
        if len(groups) > 1:
            common = max(groups, key=lambda k: len(groups[k]))
            others = [f"{n} ({k})" for k, names in groups.items() if k != common for n in names]
            option, order = ("--size N", " (height x width)") if what == "size" else ("--channels 3", "")
            raise SganError(
                f"The images of {where} differ in {what}: most have {common}{order}, but not {first_three(others)}.",
                hint=f"`sgan data pack {where} OUT.zip {option}` makes them alike.",
            )
    pngs = [n for n in source.names if n.lower().endswith(".png") or not n.lower().endswith(SUFFIXES)]
    check_each(pngs, source.check_end, where, progress)
    return headers[0]


def is_opaque(image: Image.Image) -> bool:
    """Whether an image has an alpha channel that makes nothing transparent."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)


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


def read_dataset_json(source: Any, where: str) -> tuple[DatasetJson, SganError | None]:
    """Return dataset.json, or an empty one and what is wrong with it: it does not matter until it is used."""
    try:
        return parse_dataset_json(source.dataset_json(), where, source.listing.top, source.names), None
    except SganError as e:
        return DatasetJson(), e


def stored_labels(dataset_json: DatasetJson, names: list[str], where: str) -> tuple[Labels | None, str | None]:
    """Return the labels of dataset.json, or what is wrong with them: it does not matter until they are used."""
    if dataset_json.labels is None:
        return None, None
    try:
        return labels_of(dataset_json, names, where), None
    except SganError as e:
        return None, str(e)


def class_counts(labels: Labels | None) -> dict[str, int]:
    """Return the number of images of each class."""
    if labels is None or labels.are_vectors:
        return {}
    return dict(zip(labels.names, np.bincount(labels.values, minlength=len(labels.names)).tolist(), strict=True))


def usable_attributes(dataset_json: DatasetJson, count: int) -> dict[str, list[str]]:
    """Return the attributes that have one value for each of ``count`` images."""
    return {name: values for name, values in dataset_json.attributes.items() if len(values) == count}


def chosen_labels(
    dataset_json: DatasetJson,
    stored: Labels | None,
    label: str | None,
    names: list[str],  # of the images
    where: str,
    classes: tuple[str, ...] = (),  # class names in the order that a model was trained with
) -> Labels | None:
    """Return the labels for the `label` option of `open_dataset`."""
    if label is None:
        return None
    if label == "labels":
        if dataset_json.labels is None:
            raise SganError(f"{where} has no labels.", hint=_attribute_hint(dataset_json))
        hint = "Train without --cond, or correct the labels."
        return stored or labels_of(dataset_json, names, where, hint)
    if label not in dataset_json.attributes:
        hint = suggest(label, dataset_json.attributes) or _attribute_hint(dataset_json)
        raise SganError(f"{where} has no attribute {label!r}.", hint=hint)
    values = dataset_json.attributes[label]
    if len(values) != len(names):
        raise SganError(f"The attribute {label!r} of {where} has {len(values)} values for {len(names)} images.")
    return classes_by_value(values, classes)


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
            f"{text} and cannot be enlarged to {size[0]}x{size[1]} on reading.",
            hint="Choose a smaller --size, or larger images.",
        )
    if size[0] * stored[1] != size[1] * stored[0]:
        raise SganError(
            f"{text}, which is not the aspect ratio of {size[0]}x{size[1]}.",
            hint=f"`sgan data pack {where} OUT.zip --size {size[0]}x{size[1]}` crops them to it.",
        )


def pack_filter(
    provenance: dict,  # of dataset.json
) -> str | None:
    """Return the filter that the images were last resized with: 'none' if never, None if unknown."""
    name, step = None, provenance
    while isinstance(step, dict) and name in (None, "none"):
        filter = step.get("filter")
        name = filter if isinstance(filter, str) else name
        step = step.get("from", None)  # the dataset that it was packed from, if its images were of this size already
    return name


def content_hash(source: Source, dataset_json: DatasetJson, progress: Progress) -> str:
    digest = hashlib.sha256()
    for i, name in enumerate(source.names, 1):
        crc, length = source.checksum(name)
        digest.update(f"{name}\0{crc:08x}\0{length}\n".encode("utf-8", "surrogateescape"))
        progress("hashing", i, len(source.names))
    digest.update(json.dumps([dataset_json.labels, dataset_json.attributes], sort_keys=True).encode())
    return digest.hexdigest()
