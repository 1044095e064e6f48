"""A set of pictures, opened for training or measuring: checked, read at a size, labelled.

A set is a zip or a folder of picture files with an optional dataset.json, as stylegan2-ada-pytorch and stylegan3 write
them (labels.py has the format).
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..config import DataSpec
from ..errors import SganError
from .codec import MAX_PIXELS, Header, PictureError, box_reduce, decode, ends_well, to_array, to_channels
from .labels import Record, classes_by_value, classes_of, read_record
from .sampler import Loader, Sampler
from .sources import FolderSource, ZipSource, first_three, open_source

__all__ = ["PACKAGED", "Dataset", "Loader", "Sampler", "open_dataset"]

PACKAGED = "packaged:critters64"  # in place of a path: the set that comes with the package
_PACKAGED_FILE = Path(__file__).resolve().parent.parent / "assets" / "critters64.zip"
_CHECK_PIXELS = 30_000_000  # a set of fewer pixels is decoded when it is opened, which takes about a second
_CACHE_BYTES = 1 << 30
_SMALL = 128 * 128  # pixels


class Dataset:
    """Pictures by index, in the order of their sorted names. Made by `open_dataset`. Safe to use from threads."""

    def __init__(
        self,
        source: FolderSource | ZipSource,
        spec: DataSpec,
        record: Record,
        class_index: np.ndarray | None,  # int64 [N], None without labels
        stored_counts: dict[str, int],  # pictures per class of dataset.json, used or not; empty if it has no labels
        max_pixels: int,
        cache_bytes: int,
    ):
        self.spec = spec
        self.names: tuple[str, ...] = tuple(source.names)  # of the files
        self.attributes = record.attributes  # per attribute's name, one value a picture
        self.made = record.made  # how the set was packed, empty if it does not say
        self.class_index = class_index
        self.stored_counts = stored_counts
        self._source, self._max_pixels, self._cache_bytes = source, max_pixels, cache_bytes
        self._forget()

    def resized(
        self,
        height: int,  # to read at, by area average; no larger than the pictures are stored
        width: int,
    ) -> Dataset:
        """The same pictures at another size."""
        if (height, width) == (self.spec.height, self.spec.width):
            return self
        other, spec = copy.copy(self), self.spec
        stored = (height, width) == (spec.source_height, spec.source_width)
        other.spec = dataclasses.replace(spec, height=height, width=width, filter="none" if stored else "box")
        other._forget()
        return other

    def __len__(self) -> int:
        return self.spec.num

    def _forget(self) -> None:
        """No picture has been decoded yet."""
        size = self.spec.num * self.spec.channels * self.spec.height * self.spec.width
        self._cache = np.empty((self.spec.num, *self._shape), np.uint8) if size <= self._cache_bytes else None
        self._cached = np.zeros(self.spec.num, bool)

    @property
    def name(self) -> str:
        """A short name for folders and titles."""
        return self.spec.path.split(":")[1] if self.spec.path == PACKAGED else Path(self.spec.path).stem

    def images(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """The pictures, uint8 [N, C, H, W], not flipped. Raises SganError naming a file that cannot be decoded."""
        index = np.asarray(indices, np.int64).reshape(-1)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"picture {index.min()} to {index.max()} of {len(self)}")
        if self._cache is None:
            out = np.empty((len(index), *self._shape), np.uint8)
            self._decode_into(out, range(len(index)), index)
            return torch.from_numpy(out)
        if not self._cached[index].all():
            missing = np.unique(index[~self._cached[index]])
            self._decode_into(self._cache, missing, missing)
            self._cached[missing] = True
        return torch.from_numpy(self._cache[index])

    def labels(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """One-hot classes, float32 [N, c_dim]; [N, 0] where labels are not used."""
        index = np.asarray(indices, np.int64).reshape(-1)
        out = torch.zeros(len(index), self.spec.c_dim)
        if self.class_index is not None:
            out[torch.arange(len(index)), torch.from_numpy(self.class_index[index])] = 1
        return out

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.spec.channels, self.spec.height, self.spec.width

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")

    def _decode_into(self, out: np.ndarray, slots: Sequence[int], index: Sequence[int]) -> None:
        def one(pair: tuple[int, int]) -> None:
            out[pair[0]] = self._decode(pair[1])

        pairs = list(zip(slots, index, strict=True))
        small = (
            self.spec.source_height * self.spec.source_width < _SMALL
        )  # for these, threads only get in each other's way
        for _ in map(one, pairs) if small or len(pairs) < 2 else self._threads.map(one, pairs):
            pass

    def _decode(self, i: int) -> np.ndarray:
        """One picture, uint8 [C, H, W], as read."""
        name, spec = self.names[i], self.spec
        try:
            pixels = to_array(to_channels(self._source.picture(name, self._max_pixels), spec.channels))
        except PictureError as e:
            raise SganError(f"{name} in {spec.path} cannot be read: {e}.", hint=_REPACK) from e
        if pixels.shape[1:] != (spec.source_height, spec.source_width):
            raise SganError(f"{name} in {spec.path} changed its size since the set was opened.")
        return pixels if spec.filter == "none" else box_reduce(pixels, (spec.height, spec.width))


def open_dataset(
    path: str | os.PathLike | None,  # zip or folder; None or PACKAGED: the set that comes with the package
    *,
    size: tuple[int, int] | None = None,  # (height, width) to read at, by area average; None: as stored
    mirror: bool = False,  # recorded; the training loop does the flips
    label: str | None = None,  # None: no labels; 'labels': those of dataset.json; else an attribute's name
    max_pixels: int = MAX_PIXELS,  # a larger picture is refused before it is decoded
    cache_bytes: int = _CACHE_BYTES,  # a set that takes less, decoded, is kept in memory
) -> Dataset:
    """Open a set and check it: sizes, channels and labels of all, the pixels too where that takes only a second.

    The content hash of the spec is the SHA-256 over, for each picture by sorted name, its name, CRC-32 and number of
    bytes, followed by labels and attributes: independent of time stamps, and the same for a zip as for the
    folder it unpacks to. For a zip the checksums are those of its directory; a folder is read through once.
    Raises SganError with one sentence that names the first offenders.
    """
    packaged = path is None or str(path) == PACKAGED
    where = PACKAGED if packaged else str(path)
    source = open_source(_PACKAGED_FILE if packaged else path)
    record = read_record(source.record(), where, len(source.names))
    header = _common_header(source, where, max_pixels)
    stored = _stored_classes(record, source.names, where)
    class_index, classes = _classes(record, stored, label, where)
    height, width = _read_size(header, size, where)
    spec = DataSpec(
        path=where,
        content_hash=_content_hash(source, record),
        num=len(source.names),
        height=height,
        width=width,
        channels=header.channels,
        source_height=header.height,
        source_width=header.width,
        filter="none" if (height, width) == (header.height, header.width) else "box",
        mirror=mirror,
        label=label,
        classes=classes,
        pack_filter=record.made.get("filter") if isinstance(record.made.get("filter"), str) else None,
    )
    dataset = Dataset(source, spec, record, class_index, _counts(stored), max_pixels, cache_bytes)
    if not packaged and spec.num * header.height * header.width <= _CHECK_PIXELS:
        _check_pixels(dataset)
    return dataset


_REPACK = "`sgan data pack FOLDER OUT.zip` leaves out what cannot be read and brings the rest to one form."


def _common_header(source: FolderSource | ZipSource, where: str, max_pixels: int) -> Header:
    """The size and channels that all pictures share."""

    headers = _each(source.names, lambda n: source.header(n, max_pixels), where, "checking")
    for what, of in (("size", lambda h: f"{h.width} x {h.height}"), ("channels", lambda h: str(h.channels))):
        kinds: dict[str, list[str]] = {}
        for name, h in zip(source.names, headers, strict=True):
            kinds.setdefault(of(h), []).append(name)
        if len(kinds) > 1:
            common = max(kinds, key=lambda k: len(kinds[k]))
            odd = [f"{n} ({k})" for k, names in kinds.items() if k != common for n in names]
            mend = "--size N" if what == "size" else "--channels 3"
            raise SganError(
                f"The pictures of {where} differ in {what}: most have {common}, but not {first_three(odd)}.",
                hint=f"`sgan data pack {where} OUT.zip {mend}` brings them to one form.",
            )
    _each([n for n in source.names if n.lower().endswith(".png")], lambda n: _check_end(source, n), where, "checking")
    return headers[0]


def _check_end(source: FolderSource | ZipSource, name: str) -> None:
    if not ends_well(source.tail(name)):
        decode(source.read(name))


def _check_pixels(dataset: Dataset) -> None:
    """Decode everything once. What fits in memory stays there, so that nothing is decoded twice."""
    step = 256 if dataset._cache is not None else 8
    try:
        for start in range(0, len(dataset), step):
            dataset.images(range(start, min(start + step, len(dataset))))
    except SganError:
        _each(dataset.names, lambda n: dataset._source.picture(n, dataset._max_pixels), dataset.spec.path, "checking")
        raise


def _each(names: Sequence[str], work: Callable[[str], Any], where: str, title: str) -> list[Any]:
    """``work`` on every name; if any raise PictureError, a SganError names the first three."""
    results, bad = [], []
    for name in tqdm(names, title, unit="picture", delay=2, disable=None, leave=False):
        try:
            results.append(work(name))
        except PictureError as e:
            bad.append(f"{name} ({e})")
    if bad:
        raise SganError(f"{len(bad)} picture(s) of {where} cannot be read: {first_three(bad)}.", hint=_REPACK)
    return results


_Classes = tuple[np.ndarray, tuple[str, ...]]  # class number of every picture, int64 [N]; class names


def _stored_classes(record: Record, names: list[str], where: str) -> _Classes | None:
    """What dataset.json says, which must fit the pictures even where labels are not used."""
    if record.labels is None:
        return None
    known = record.made.get("classes")
    hint = f"`sgan data pack {where} OUT.zip --labels none` drops the labels."
    return classes_of(record.labels, names, where, known if isinstance(known, list) else None, hint)


def _counts(classes: _Classes | None) -> dict[str, int]:
    if classes is None:
        return {}
    return dict(zip(classes[1], np.bincount(classes[0], minlength=len(classes[1])).tolist(), strict=True))


def _classes(record: Record, stored: _Classes | None, label: str | None, where: str) -> tuple[np.ndarray | None, tuple]:
    """The classes that are asked for."""
    if label is None:
        return None, ()
    if label == "labels":
        if stored is None:
            raise SganError(f"{where} has no labels.", hint=_attribute_hint(record))
        return stored
    if label not in record.attributes:
        near = difflib.get_close_matches(label, record.attributes, 1)
        hint = f"Did you mean {near[0]}?" if near else _attribute_hint(record)
        raise SganError(f"{where} has no attribute {label!r}.", hint=hint)
    return classes_by_value(record.attributes[label])


def _attribute_hint(record: Record) -> str:
    if record.attributes:
        return "Its attributes can be labels: " + ", ".join(record.attributes) + "."
    return "`sgan data pack FOLDER OUT.zip --labels folders` makes a class of each sub-folder."


def _read_size(header: Header, size: tuple[int, int] | None, where: str) -> tuple[int, int]:
    stored = (header.height, header.width)
    if size is None:
        return stored
    text = f"{where} holds pictures of {stored[0]}x{stored[1]} (height x width)"
    if size[0] > stored[0] or size[1] > stored[1]:
        raise SganError(f"{text}; they cannot be read larger, at {size[0]}x{size[1]}.", hint="Choose a smaller --size.")
    if size[0] * stored[1] != size[1] * stored[0]:
        raise SganError(
            f"{text}; a size of {size[0]}x{size[1]} has another shape.",
            hint=f"`sgan data pack {where} OUT.zip --size {size[0]}x{size[1]}` crops them to it.",
        )
    return size


def _content_hash(source: FolderSource | ZipSource, record: Record) -> str:
    digest = hashlib.sha256()
    for name in tqdm(source.names, "hashing", unit="picture", delay=2, disable=None, leave=False):
        crc, length = source.checksum(name)
        digest.update(f"{name}\0{crc:08x}\0{length}\n".encode("utf-8", "surrogateescape"))
    digest.update(json.dumps([record.labels, record.attributes], sort_keys=True).encode())
    return digest.hexdigest()
