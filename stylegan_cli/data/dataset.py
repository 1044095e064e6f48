"""A set of images, opened for training or measuring: checked, read at a size, labeled.

A set is a zip or a folder of image files with an optional dataset.json, as stylegan2-ada-pytorch and stylegan3 write
them (labels.py has the format).
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SganError
from ..progress import Progress, silent
from ..threads import available_cores
from .checks import (
    REPACK,
    check_each,
    check_size,
    chosen_classes,
    class_counts,
    common_header,
    content_hash,
    stored_classes,
)
from .codec import MAX_PIXELS, ImageError, box_reduce, to_array, to_channels
from .labels import Record, read_record
from .sources import FolderSource, ZipSource, open_source

if TYPE_CHECKING:  # configurations hold a DataSpec, and are read without torch
    from torch import Tensor

PACKAGED = "packaged:critters64"  # in place of a path: the set that comes with the package
_PACKAGED_FILE = Path(__file__).resolve().parent.parent / "assets" / "critters64.zip"
_CHECK_PIXELS = 30_000_000  # a set of fewer pixels is decoded when it is opened, which takes about a second
_CACHE_BYTES = 1 << 30
_SMALL = 128 * 128  # pixels


@dataclass(frozen=True)
class DataSpec:
    """Exactly which images a model saw: recorded in every snapshot, so that metrics measure against the same."""

    path: str  # zip or folder as given, or packaged:critters64
    content_hash: str  # SHA-256 over names, checksums and lengths of the images, and over the labels
    num: int  # images
    height: int  # as read
    width: int
    channels: int  # 1 gray, 3 RGB, 4 RGBA
    source_height: int  # as stored
    source_width: int
    filter: str = "none"  # how stored became read: 'none' or 'box'
    mirror: bool = False  # x-flips during training
    label: str | None = None  # which labels: None = unused, 'labels' = those of dataset.json, else an attribute's name
    classes: tuple[str, ...] = ()  # class names by index; empty without labels
    pack_filter: str | None = None  # filter recorded when the set was packed, if it says so

    @property
    def c_dim(self) -> int:
        return len(self.classes)

    def open(
        self,
        *,
        size: tuple[int, int] | None = None,  # (height, width) to read at instead
        labels: bool = True,  # False: without them
        changed: str | None = None,  # what to say if other images or labels are there now
        gone: str | None = None,  # what to say first if it cannot be opened
        hint: str | None = None,  # what to do about either
        progress: Progress = silent,
    ) -> Dataset:
        """The set as it was recorded. Raises SganError if it cannot be opened, or holds something else now."""
        size, label = size or (self.height, self.width), self.label if labels else None
        try:
            dataset = open_dataset(self.path, size=size, mirror=self.mirror, label=label, progress=progress)
        except SganError as e:
            if gone is None:
                raise
            raise SganError(f"{gone}: {e}", hint=hint) from e
        if dataset.spec.content_hash != self.content_hash:
            raise SganError(changed or f"The images or labels in {self.path} have changed.", hint=hint)
        return dataset


class Dataset:
    """Images by index, in the order of their sorted names. Made by `open_dataset`. Safe to use from threads."""

    def __init__(
        self,
        source: FolderSource | ZipSource,
        spec: DataSpec,
        record: Record,
        class_index: np.ndarray | None,  # int64 [N], None without labels
        stored_counts: dict[str, int],  # images per class of dataset.json, used or not; empty if it has no labels
        max_pixels: int,
        cache_bytes: int,
    ):
        self.spec = spec
        self.names: tuple[str, ...] = tuple(source.names)  # of the files
        self.attributes = record.attributes  # per attribute's name, one value an image
        self.made = record.made  # how the set was packed, empty if it does not say
        self.class_index = class_index
        self.stored_counts = stored_counts
        self._source, self._max_pixels, self._cache_bytes = source, max_pixels, cache_bytes
        self._forget()

    def resized(
        self,
        height: int,  # to read at, by area average; no larger than the images are stored
        width: int,
    ) -> Dataset:
        """The same images at another size. Raises SganError if they cannot be read at it."""
        if (height, width) == (self.spec.height, self.spec.width):
            return self
        other, spec = copy.copy(self), self.spec
        stored = spec.source_height, spec.source_width
        check_size(stored, (height, width), spec.path)
        filter = "none" if (height, width) == stored else "box"
        other.spec = dataclasses.replace(spec, height=height, width=width, filter=filter)
        other._forget()
        return other

    def __len__(self) -> int:
        return self.spec.num

    def _forget(self) -> None:
        """No image has been decoded yet."""
        size = self.spec.num * self.spec.channels * self.spec.height * self.spec.width
        self._cache = np.empty((self.spec.num, *self._shape), np.uint8) if size <= self._cache_bytes else None
        self._cached = np.zeros(self.spec.num, bool)

    @property
    def name(self) -> str:
        """A short name for folders and titles."""
        return self.spec.path.split(":")[1] if self.spec.path == PACKAGED else Path(self.spec.path).stem

    def images(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        """The images, uint8 [N, C, H, W], not flipped. Raises SganError naming a file that cannot be decoded."""
        index = np.asarray(indices, np.int64).reshape(-1)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"image {index.min()} to {index.max()} of {len(self)}")
        if self._cache is None:
            out = np.empty((len(index), *self._shape), np.uint8)
            self._decode_into(out, range(len(index)), index)
            return _tensor(out)
        if not self._cached[index].all():
            missing = np.unique(index[~self._cached[index]])
            self._decode_into(self._cache, missing, missing)
            self._cached[missing] = True
        return _tensor(self._cache[index])

    def labels(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        """One-hot classes, float32 [N, c_dim]; [N, 0] where labels are not used."""
        index = np.asarray(indices, np.int64).reshape(-1)
        out = np.zeros((len(index), self.spec.c_dim), np.float32)
        if self.class_index is not None:
            out[np.arange(len(index)), self.class_index[index]] = 1
        return _tensor(out)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.spec.channels, self.spec.height, self.spec.width

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(8, available_cores()), thread_name_prefix="decode")

    def _decode_into(self, out: np.ndarray, slots: Iterable[int], index: Iterable[int]) -> None:
        def one(pair: tuple[int, int]) -> None:
            out[pair[0]] = self._decode(pair[1])

        pairs = list(zip(slots, index, strict=True))
        small = (
            self.spec.source_height * self.spec.source_width < _SMALL
        )  # for these, threads only get in each other's way
        for _ in map(one, pairs) if small or len(pairs) < 2 else self._threads.map(one, pairs):
            pass

    def _decode(self, i: int) -> np.ndarray:
        """One image, uint8 [C, H, W], as read."""
        name, spec = self.names[i], self.spec
        try:
            pixels = to_array(to_channels(self._source.image(name, self._max_pixels), spec.channels))
        except ImageError as e:
            raise SganError(f"{name} in {spec.path} cannot be read: {e}.", hint=REPACK) from e
        if pixels.shape[1:] != (spec.source_height, spec.source_width):
            raise SganError(f"{name} in {spec.path} changed its size since the set was opened.")
        return pixels if spec.filter == "none" else box_reduce(pixels, (spec.height, spec.width))


def open_dataset(
    path: str | os.PathLike | None,  # zip or folder; None or PACKAGED: the set that comes with the package
    *,
    size: tuple[int, int] | None = None,  # (height, width) to read at, by area average; None: as stored
    mirror: bool = False,  # recorded; the training loop does the flips
    label: str | None = None,  # None: no labels; 'labels': those of dataset.json; else an attribute's name
    max_pixels: int = MAX_PIXELS,  # a larger image is refused before it is decoded
    cache_bytes: int = _CACHE_BYTES,  # a set that takes less, decoded, is kept in memory
    progress: Progress = silent,
) -> Dataset:
    """Open a set and check it: sizes, channels and labels of all, the pixels too where that takes only a second.

    The content hash of the spec is the SHA-256 over, for each image by sorted name, its name, CRC-32 and number of
    bytes, followed by labels and attributes: independent of time stamps, and the same for a zip as for the
    folder it unpacks to. For a zip the checksums are those of its directory; a folder is read through once.
    Raises SganError with one sentence that names the first offenders.
    """
    where = PACKAGED if path is None else str(path)
    packaged = where == PACKAGED
    source = open_source(_PACKAGED_FILE if packaged else where)
    record = read_record(source.record(), where, len(source.names))
    header = common_header(source, where, max_pixels, progress)
    stored = stored_classes(record, source.names, where)
    class_index, classes = chosen_classes(record, stored, label, where)
    stored_size = header.height, header.width
    height, width = size or stored_size
    check_size(stored_size, (height, width), where)
    spec = DataSpec(
        path=where,
        content_hash=content_hash(source, record, progress),
        num=len(source.names),
        height=height,
        width=width,
        channels=header.channels,
        source_height=header.height,
        source_width=header.width,
        filter="none" if (height, width) == stored_size else "box",
        mirror=mirror,
        label=label,
        classes=classes,
        pack_filter=record.made.get("filter") if isinstance(record.made.get("filter"), str) else None,
    )
    dataset = Dataset(source, spec, record, class_index, class_counts(stored), max_pixels, cache_bytes)
    if not packaged and spec.num * header.height * header.width <= _CHECK_PIXELS:
        _check_pixels(dataset, progress)
    return dataset


def _check_pixels(dataset: Dataset, progress: Progress) -> None:
    """Decode everything once. What fits in memory stays there, so that nothing is decoded twice."""
    step = 256 if dataset._cache is not None else 8
    try:
        for start in range(0, len(dataset), step):
            dataset.images(range(start, min(start + step, len(dataset))))
    except SganError:
        source, most = dataset._source, dataset._max_pixels
        check_each(dataset.names, lambda n: source.image(n, most), dataset.spec.path, progress)
        raise


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(array)
