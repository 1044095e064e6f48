"""Images in TFRecords, read without TensorFlow.

The tools of the first StyleGANs write one file for each size, NAME-r02.tfrecords (4x4) to NAME-r10.tfrecords
(1024x1024), and the labels NAME-rxx.labels, a NumPy array with one row per image. A record has `shape`, three integers
[C, H, W], and `data`, the pixels. Other tools store a file instead: PNG, JPEG or another format, under any name.

A file is a sequence of records: length (8 bytes), its masked CRC-32C (4), the record, its masked CRC-32C (4).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import SganError
from .arrays import load_arrays, plain_labels
from .codec import HEAD, MAX_PIXELS, Header, ImageError, check_pixels, decode, from_array
from .crc32c import masked_crc32c
from .example import Read, parse_example
from .formats import SNIFF, format_of
from .labels import natural_order
from .listing import HIDDEN, SAME_IMAGES, Listing, first_three
from .sources import MAX_FILE, Source, ThreadFile, as_image_errors, header_of

_LABELS = ("label", "labels", "class", "image/class/label")  # features of a record
_LEVEL = re.compile(r"(.*)-r(\d\d)\.tfrecords?", re.IGNORECASE)
_FRAME = 12  # bytes before a record: its length and the checksum of that


@dataclass(frozen=True)
class _Place:
    """Where a record is, or why it cannot be read."""

    file: str
    start: int = 0
    length: int = 0
    fault: str | None = None


@dataclass(frozen=True)
class _Found:
    """The image in a record."""

    read: Read  # bytes of the record
    start: int
    stop: int
    shape: tuple[int, int, int] | None  # [C, H, W] of pixels; None: an encoded image


class TFRecordSource(Source):
    """The records of one size, named 'FILE record NUMBER', counted from 0."""

    def __init__(
        self,
        path: Path,  # folder
        files: list[str],  # names in it: of all sizes, or of the parts of one dataset
        ignored: dict[str, str],  # all files of the folder that are not images, with the reason
        size: tuple[int, int] | None,  # to choose, if it is there; else the largest
    ):
        self.path, self._file = path, ThreadFile()
        self._usual: Header | None = None  # of a record whose checksum is right
        self._file_names = self._of_one_size(files, size)
        self._places = {_name(n, i): place for n in self._file_names for i, place in enumerate(self._index(n))}
        if sizes := [name for name in files if name not in self._file_names]:
            smallest = min(sizes, key=lambda name: (path / name).stat().st_size)
            for i in range(len(self._places), sum(1 for _ in self._index(smallest))):
                fault = f"it is missing, but {smallest} has it"
                self._places[_name(self._file_names[0], i)] = _Place(smallest, fault=fault)
        self._label_file = _labels_of_files(path, self._file_names[0], ignored)
        taken = {*self._file_names, self._label_file}
        others = {n: SAME_IMAGES if n in files else reason for n, reason in ignored.items() if n not in taken}
        self.listing = Listing([*self._places], others, None, [])

    def header(self, name: str, max_pixels: int) -> Header:
        place, header = self._places[name], None
        with contextlib.suppress(ImageError):
            header = _header(_find(*self._record(place, verify=False)), max_pixels)
        if header is None or header != self._usual:  # verifying all of every record would take too long
            header = self._usual = _header(_find(*self._record(place)), max_pixels)
        return header

    def image(self, name: str, max_pixels: int) -> Image.Image:
        found = _find(*self._record(self._places[name]))
        data = found.read(found.start, found.stop - found.start)
        if found.shape is None:
            return decode(data, max_pixels)
        check_pixels(*found.shape[1:], max_pixels)
        return from_array(np.frombuffer(data, np.uint8).reshape(found.shape))

    def check_end(self, name: str) -> None:
        """Do nothing: `_index` has checked that the record ends."""

    def checksum(self, name: str) -> tuple[int, int]:
        """Return the stored CRC and the length of the record."""
        place = self._places[name]
        return int.from_bytes(self._bytes(place.file, place.start + place.length, 4), "little"), place.length

    def dataset_json(self) -> bytes | None:
        """Return the labels of the file beside the records, or in them, as the text of a dataset.json."""
        if self._label_file is None:
            labels = self._labels_in_records()
        else:
            labels = self._labels_beside(self.path / self._label_file)
        return json.dumps({"labels": labels}).encode() if labels else None

    def _labels_beside(self, path: Path) -> list[tuple[str, Any]]:
        """Read one label for each record, also for those that are missing."""
        array = next(iter(load_arrays(path).values()))
        if array.ndim == 2 and array.shape[1] == 0:
            return []
        labels = plain_labels(array, path, array.shape[0] if array.ndim else 0)
        names = [*self.names, *(_name(self._file_names[-1], i) for i in range(len(self.names), len(labels)))]
        return list(zip(names, labels, strict=False))

    def _labels_in_records(self) -> list[tuple[str, Any]]:
        """Read the labels of all records that are whole, if the first of these has one."""
        labels: list[tuple[str, Any]] = []
        for name, place in self._places.items():
            with contextlib.suppress(ImageError):
                read, length = self._record(place)
                features = parse_example(read, length)
                values = next((features[key] for key in _LABELS if features.get(key)), None)
                if values is None and not labels:
                    return []
                values = [_text(read, *v) if isinstance(v, tuple) else v for v in values or [None]]
                labels.append((name, values[0] if len(values) == 1 else values))
        return labels

    def _of_one_size(self, files: list[str], size: tuple[int, int] | None) -> list[str]:
        """Return the file of the chosen size, or all files if they are not files of several sizes."""
        levels = {name: match for name in files if (match := _LEVEL.fullmatch(name))}
        datasets = {match[1] for match in levels.values()} | {"" for name in files if name not in levels}
        if len(datasets) > 1:
            raise SganError(
                f"{self.path} has TFRecords of more than one dataset: {first_three(files)}.",
                hint="Pass the folder or the file of one.",
            )
        if not levels:
            return sorted(files, key=natural_order)
        sizes = {name: self._stored_size(name, 1 << int(match[2])) for name, match in levels.items()}
        exact = [name for name in files if sizes[name] == size]
        return exact[:1] or [max(files, key=lambda name: sizes[name])]

    def _stored_size(self, file: str, usual: int) -> tuple[int, int]:
        """Return height and width of the first record; the usual side if that cannot be read."""
        with contextlib.suppress(ImageError):
            for place in self._index(file):
                header = _header(_find(*self._record(place)), MAX_PIXELS)
                return header.height, header.width
        return usual, usual

    def _index(self, file: str) -> Iterator[_Place]:
        """Find all records, up to one whose end cannot be found."""
        size, position = (self.path / file).stat().st_size, 0
        while position < size:
            frame = self._bytes(file, position, min(_FRAME, size - position))
            length, start = int.from_bytes(frame[:8], "little"), position + _FRAME
            fault = None
            if frame[:2] == b"\x1f\x8b" and position == 0:
                fault = "the file is compressed; unpack it with gunzip"
            elif len(frame) == _FRAME and masked_crc32c(frame[:8]) != int.from_bytes(frame[8:], "little"):
                fault = "its length does not match its checksum, so the records after it cannot be found either"
            elif start + length + 4 > size:
                fault = "the file is truncated"
            yield _Place(file, start, length, fault)
            if fault:
                return
            position = start + length + 4

    def _record(self, place: _Place, verify: bool = True) -> tuple[Read, int]:
        """Return what reads bytes of a record, and its length. Raises ImageError."""
        if place.fault:
            raise ImageError(place.fault)
        if not verify:
            return lambda position, count: self._bytes(place.file, place.start + position, count), place.length
        if place.length > MAX_FILE:
            raise ImageError("the record is larger than 1 GB")
        data = self._bytes(place.file, place.start, place.length + 4)
        record = data[:-4]
        if masked_crc32c(record) != int.from_bytes(data[-4:], "little"):
            raise ImageError("its data do not match their checksum")
        return lambda position, count: record[position : position + count], place.length

    def _bytes(self, file: str, position: int, count: int) -> bytes:
        def read() -> bytes:
            f = self._file.open(self.path / file)
            f.seek(position)
            return f.read(count)

        data = as_image_errors(read)
        if len(data) < count:
            raise ImageError("the file is truncated")
        return data


def _find(read: Read, length: int) -> _Found:
    """Find the image in a record. Raises ImageError."""
    features = parse_example(read, length)
    shape = features.get("shape", [])
    spans = {name: values[0] for name, values in features.items() if values and isinstance(values[0], tuple)}
    start, stop = spans.get("data", (0, 0))
    if len(shape) == 3 and math.prod(shape) == stop - start > 0:
        if shape[0] not in (1, 3, 4) or min(shape) < 1:
            raise ImageError(f"its shape {shape} is not [channels, height, width] with 1, 3 or 4 channels")
        return _Found(read, start, stop, (shape[0], shape[1], shape[2]))
    for first, end in spans.values():
        if format_of(read(first, min(SNIFF, end - first))):
            return _Found(read, first, end, None)
    if "data" in spans and shape:
        raise ImageError(f"its shape {shape} does not fit its {stop - start} bytes")
    raise ImageError(f"it has no image; its features are {first_three(sorted(features)) or 'none'}")


def _header(found: _Found, max_pixels: int) -> Header:
    def read(count: int | None = None) -> bytes:
        length = found.stop - found.start
        return found.read(found.start, length if count is None else min(count, length))

    if found.shape is None:
        return header_of(read(HEAD), read, max_pixels)
    channels, height, width = found.shape
    check_pixels(height, width, max_pixels)
    return Header(height, width, channels)


def _name(file: str, number: int) -> str:
    return f"{file} record {number:08d}"


def _text(read: Read, start: int, stop: int) -> str:
    return read(start, stop - start).decode(errors="backslashreplace")


def _labels_of_files(path: Path, first: str, ignored: dict[str, str]) -> str | None:
    """Return the name of the file with the labels, if there is one. Raises SganError if there are several."""
    match = _LEVEL.fullmatch(first)
    stem = match[1] if match else str(Path(first).with_suffix(""))
    if own := [name for name in (f"{stem}-rxx.labels", f"{stem}.labels") if (path / name).is_file()]:
        return own[0]
    others = [name for name, reason in ignored.items() if name.endswith(".labels") and reason != HIDDEN]
    if len(others) > 1:
        raise SganError(
            f"{path} has more than one file of labels: {first_three(others)}.",
            hint=f"Name the right one {Path(stem).name}-rxx.labels.",
        )
    return others[0] if others else None
