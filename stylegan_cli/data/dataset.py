"""Datasets, opened for training or measuring: checked, read at a chosen size, labeled.

A dataset is a zip or a folder of image files with an optional dataset.json, as stylegan2-ada-pytorch and stylegan3
write them (labels.py documents the format), or another source of images (opening.py).
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SganError, plural
from ..progress import Progress, silent
from ..threads import available_cores
from .checks import (
    REPACK,
    check_each,
    check_size,
    chosen_labels,
    class_counts,
    common_header,
    content_hash,
    pack_filter,
    read_dataset_json,
    stored_labels,
    usable_attributes,
)
from .codec import MAX_PIXELS, ImageError, box_reduce, to_array, to_channels
from .labels import DatasetJson, Labels
from .opening import open_source
from .sources import Source

if TYPE_CHECKING:  # configurations contain a DataSpec and are read without importing PyTorch
    from torch import Tensor

BUNDLED = "packaged:critters64"  # stands in for the path of the bundled dataset
_BUNDLED_FILE = Path(__file__).resolve().parent.parent / "assets" / "critters64.zip"
_CHECK_PIXELS = 30_000_000  # smaller datasets are decoded when opened, which takes about a second
_CACHE_BYTES = 1 << 30
_SMALL = 128 * 128  # pixels of an image: below, threads only slow decoding down


@dataclass(frozen=True)
class DataSpec:
    """Which images a model was trained on: saved in every snapshot, so that metrics use the same ones."""

    path: str  # path of a source of images, or packaged:critters64
    content_hash: str  # SHA-256 of the names, checksums and lengths of the images, and of the labels
    num: int  # number of images
    height: int  # as read
    width: int
    channels: int  # 1 gray, 3 RGB, 4 RGBA
    source_height: int  # as stored
    source_width: int
    filter: str = "none"  # resizing from stored to read: 'none' or 'box'
    mirror: bool = False  # whether training flips images horizontally
    label: str | None = None  # None: no labels; 'labels': those of dataset.json; else the name of an attribute
    classes: tuple[str, ...] = ()  # class names by index, or names of the numbers of a vector; empty without labels
    pack_filter: str | None = None  # filter that the dataset was packed with, if known
    vectors: tuple[tuple[float, ...], ...] = ()  # label vectors of some of the images; empty if labels are classes

    @property
    def c_dim(self) -> int:
        return len(self.classes)

    def describe_labels(self) -> str:
        """'3 classes', '5 label values', or '' without labels."""
        return plural(self.c_dim, self.label_unit) if self.c_dim else ""

    @property
    def label_unit(self) -> str:
        """What c_dim counts."""
        return "label value" if self.vectors else "class"

    def open(
        self,
        *,
        size: tuple[int, int] | None = None,  # (height, width) to read at; None: as recorded
        labels: bool = True,  # whether to read the labels
        changed_message: str | None = None,  # error if the images or labels have changed
        missing_message: str | None = None,  # start of the error if the dataset cannot be opened
        hint: str | None = None,  # hint of either error
        progress: Progress = silent,
    ) -> Dataset:
        """Open the dataset as recorded. Raises SganError if it cannot be opened or its content has changed."""
        size, label = size or (self.height, self.width), self.label if labels else None
        try:
            dataset = open_dataset(
                self.path,
                size=size,
                stored_size=(self.source_height, self.source_width),
                mirror=self.mirror,
                label=label,
                classes=self.classes,
                progress=progress,
            )
        except SganError as e:
            if missing_message is None:
                raise
            raise SganError(f"{missing_message}: {e}", hint=hint) from e
        if dataset.spec.content_hash != self.content_hash:
            raise SganError(changed_message or f"The images or labels in {self.path} have changed.", hint=hint)
        return dataset


class Dataset:
    """Images by index, in the order of their sorted names. Created by `open_dataset`. Thread-safe."""

    def __init__(
        self,
        source: Source,
        spec: DataSpec,
        dataset_json: DatasetJson,
        labels: Labels | None,  # those to train on
        stored: Labels | None,  # those of dataset.json, even if unused
        label_problem: str | None,  # why those of dataset.json cannot be used
        max_pixels: int,
        cache_bytes: int,
    ):
        self.spec = spec
        self.names: tuple[str, ...] = tuple(source.names)  # file names
        self.attributes = usable_attributes(dataset_json, len(source.names))  # by name: one value per image
        self.provenance = dataset_json.provenance  # how the dataset was made; empty if unknown
        self.class_index = None if labels is None or labels.are_vectors else labels.values  # int64 [N]
        self.vectors = labels.values.astype(np.float32) if labels and labels.are_vectors else None  # float32 [N, c_dim]
        self.stored, self.stored_counts, self.label_problem = stored, class_counts(stored), label_problem
        self.ignored = source.listing.ignored  # name -> why the file is not taken
        self._source, self._max_pixels, self._cache_bytes = source, max_pixels, cache_bytes
        self._reset_cache()

    def resized(
        self,
        height: int,  # size to read at, by area average; at most the stored size
        width: int,
    ) -> Dataset:
        """Return the same images at another size. Raises SganError if they cannot be read at that size."""
        if (height, width) == (self.spec.height, self.spec.width):
            return self
        other, spec = copy.copy(self), self.spec
        stored = spec.source_height, spec.source_width
        check_size(stored, (height, width), spec.path)
        filter = "none" if (height, width) == stored else "box"
        other.spec = dataclasses.replace(spec, height=height, width=width, filter=filter)
        other._reset_cache()
        return other

    def __len__(self) -> int:
        return self.spec.num

    def _reset_cache(self) -> None:
        size = self.spec.num * self.spec.channels * self.spec.height * self.spec.width
        self._cache = np.empty((self.spec.num, *self._shape), np.uint8) if size <= self._cache_bytes else None
        self._cached = np.zeros(self.spec.num, bool)

    @property
    def name(self) -> str:
        """A short name for folders and titles."""
        return self.spec.path.split(":")[1] if self.spec.path == BUNDLED else Path(self.spec.path).stem

    def images(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        """Return images, uint8 [N, C, H, W], not flipped. Raises SganError if a file cannot be decoded."""
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
        """Return one-hot classes or label vectors, float32 [N, c_dim]; [N, 0] without labels."""
        index = np.asarray(indices, np.int64).reshape(-1)
        if self.vectors is not None:
            return _tensor(self.vectors[index])
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
        def decode_one(pair: tuple[int, int]) -> None:
            out[pair[0]] = self._decode(pair[1])

        pairs = list(zip(slots, index, strict=True))
        is_small = self.spec.source_height * self.spec.source_width < _SMALL
        for _ in map(decode_one, pairs) if is_small or len(pairs) < 2 else self._threads.map(decode_one, pairs):
            pass

    def _decode(self, i: int) -> np.ndarray:
        """Decode one image at the size to read at, uint8 [C, H, W]."""
        name, spec = self.names[i], self.spec
        try:
            pixels = to_array(to_channels(self._source.image(name, self._max_pixels), spec.channels))
        except ImageError as e:
            raise SganError(f"{name} in {spec.path} cannot be read: {e}.", hint=REPACK) from e
        if pixels.shape[1:] != (spec.source_height, spec.source_width):
            raise SganError(f"{name} in {spec.path} has changed size since the dataset was opened.")
        return pixels if spec.filter == "none" else box_reduce(pixels, (spec.height, spec.width))


def open_dataset(
    path: str | os.PathLike | None,  # any source, see `open_source`; None or BUNDLED: the bundled dataset
    *,
    size: tuple[int, int] | None = None,  # (height, width) to read at, by area average; None: as stored
    stored_size: tuple[int, int] | None = None,  # to choose of several that are stored; None: `size`, or the largest
    mirror: bool = False,  # only recorded: the training loop does the flipping
    label: str | None = None,  # None: no labels; 'labels': those of dataset.json; else the name of an attribute
    classes: tuple[str, ...] = (),  # order of an attribute's values, if it is known; else they are sorted
    convert: Callable[[Source], Source] | None = None,  # of the source, before anything else is read from it
    max_pixels: int = MAX_PIXELS,  # larger images are rejected before they are decoded
    cache_bytes: int = _CACHE_BYTES,  # datasets whose decoded size is below are kept in memory
    progress: Progress = silent,
) -> Dataset:
    """Open a dataset and check sizes, channels and labels of all images; small datasets are also decoded.

    The content hash of the spec is the SHA-256 of the name, CRC-32 and length of each image, by sorted name, followed
    by labels and attributes. It does not depend on time stamps, and is the same for a zip and for the folder that it
    unpacks to. For a zip, the checksums come from its directory; a folder is read through once. TFRecords have CRC-32C.
    Raises SganError that names the first files at fault.
    """
    where = BUNDLED if path is None else str(path)
    is_bundled = where == BUNDLED
    source = open_source(_BUNDLED_FILE if is_bundled else where, stored_size or size)
    source.listing.check_labels(where)
    source = source if convert is None else convert(source)
    dataset_json, broken = read_dataset_json(source, where)
    if broken and label is not None:
        raise broken
    header = common_header(source, where, max_pixels, progress)
    stored, problem = (None, str(broken)) if broken else stored_labels(dataset_json, source.names, where)
    labels = chosen_labels(dataset_json, stored, label, source.names, where, classes)
    stored_size = header.height, header.width
    height, width = size or stored_size
    check_size(stored_size, (height, width), where)
    spec = DataSpec(
        path=where,
        content_hash=content_hash(source, dataset_json, progress),
        num=len(source.names),
        height=height,
        width=width,
        channels=header.channels,
        source_height=header.height,
        source_width=header.width,
        filter="none" if (height, width) == stored_size else "box",
        mirror=mirror,
        label=label,
        classes=labels.names if labels else (),
        pack_filter=pack_filter(dataset_json.provenance),
        vectors=labels.some_vectors() if labels else (),
    )
    dataset = Dataset(source, spec, dataset_json, labels, stored, problem, max_pixels, cache_bytes)
    if not is_bundled and spec.num * header.height * header.width <= _CHECK_PIXELS:
        _check_pixels(dataset, progress)
    return dataset


def _check_pixels(dataset: Dataset, progress: Progress) -> None:
    """Decode every image once; the images stay in the cache if there is one."""
    step = 256 if dataset._cache is not None else 8
    try:
        for start in range(0, len(dataset), step):
            dataset.images(range(start, min(start + step, len(dataset))))
    except SganError:
        source, max_pixels = dataset._source, dataset._max_pixels
        check_each(dataset.names, lambda n: source.image(n, max_pixels), dataset.spec.path, progress)
        raise


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(array)
