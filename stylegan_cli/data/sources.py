"""Sources of images, which are read by name, from any thread or process; those of image files: a folder or a zip."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image

from ..errors import SganError
from .codec import HEAD, TAIL, Header, ImageError, decode, ends_well, may_turn_late, read_header
from .formats import CONTAINER_SNIFF, kind_of, why_unreadable
from .listing import Listing, duplicates, first_three, list_files, normalized, walk

T = TypeVar("T")

MAX_FILE = 1 << 30  # bytes of an image file: larger ones are rejected


class Source:
    """Base class: images that are decoded from the bytes of files."""

    path: Path
    listing: Listing

    @property
    def names(self) -> list[str]:
        """The names of the images, in their order."""
        return self.listing.images

    def dataset_json(self) -> bytes | None:
        """Read dataset.json, if there is one."""
        name = self.listing.labels
        try:
            return None if name is None else self.read(name)
        except ImageError as e:
            raise SganError(f"Cannot read {name} in {self.path}: {e}.") from e

    def header(self, name: str, max_pixels: int) -> Header:
        """Read size and channels. Raises ImageError if the file is not an image or has too many pixels."""
        head = self.head(name)
        header = header_of(head, lambda: self.read(name), max_pixels)
        if header.height != header.width and may_turn_late(head, lambda: self.tail(name, TAIL)):
            image = self.image(name, max_pixels)
            return Header(image.height, image.width, header.channels)
        return header

    def image(self, name: str, max_pixels: int) -> Image.Image:
        """Decode the image, in mode L, RGB or RGBA. Raises ImageError."""
        return decode(self.read(name), max_pixels)

    def check_end(self, name: str) -> None:
        """Raise ImageError if the file is a PNG and truncated, or another one and cannot be decoded."""
        if not ends_well(self.tail(name, 12)):
            decode(self.read(name))

    def read(self, name: str) -> bytes:
        """Read the whole file. Raises ImageError."""
        raise NotImplementedError

    def head(self, name: str) -> bytes:
        """Read the first HEAD bytes, or more. Raises ImageError."""
        return self.read(name)

    def tail(self, name: str, count: int) -> bytes:
        """Read the last bytes, or more. Raises ImageError."""
        return self.read(name)[-count:]

    def checksum(self, name: str) -> tuple[int, int]:
        """Return a CRC and the number of bytes."""
        data = self.read(name)
        return zlib.crc32(data), len(data)


class ThreadFile:
    """Keeps the last file open, one for each thread and process, because they would share its position."""

    def __init__(self):
        self._local = threading.local()

    def __reduce__(self):  # open files cannot be sent to another process
        return ThreadFile, ()

    def open(self, path: Path) -> BinaryIO:
        """Return the open file at any position."""
        key = os.getpid(), path
        if getattr(self._local, "key", None) != key:
            if hasattr(self._local, "key"):
                self._local.file.close()
            self._local.file, self._local.key = open(path, "rb"), key  # noqa: SIM115 (stays open)
        return self._local.file


class FolderSource(Source):
    """A folder of image files, searched recursively."""

    def __init__(self, path: Path):
        self.path = path
        names, others = walk(path)
        self.listing = list_files(names, lambda name: self._bytes(name, HEAD), others)

    def read(self, name: str) -> bytes:
        return as_image_errors(lambda: self._bytes(name, MAX_FILE + 1))

    def head(self, name: str) -> bytes:
        return as_image_errors(lambda: self._bytes(name, HEAD))

    def tail(self, name: str, count: int) -> bytes:
        return as_image_errors(lambda: self._last_bytes(name, count))

    def _last_bytes(self, name: str, count: int) -> bytes:
        with open(self.path / name, "rb") as f:
            f.seek(-min(count, f.seek(0, os.SEEK_END)), os.SEEK_END)
            return f.read()

    def _bytes(self, name: str, max_bytes: int) -> bytes:
        with open(self.path / name, "rb") as f:
            data = f.read(max_bytes)
        if len(data) > MAX_FILE:
            raise ImageError("the file is larger than 1 GB")
        return data


class ZipSource(Source):
    """A zip of image files. Reads members without zipfile, for speed: see benchmarks/bench_data.py."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as z:
                infos = [i for i in z.infolist() if not i.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as e:
            raise _bad_zip(path) from e
        except OSError as e:
            raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e
        self._members = {normalized(i.filename): i for i in infos}
        if len(self._members) < len(infos):
            twice = duplicates(normalized(i.filename) for i in infos)
            raise SganError(
                f"{path} has more than one entry of the same name: {first_three(twice)}.",
                hint="Unpack it, sort out which of them is meant, and pass the folder.",
            )
        self._file = ThreadFile()
        self.listing = list_files(self._members, self._sniff, {})

    def read(self, name: str) -> bytes:
        return as_image_errors(lambda: self._member(name))

    def head(self, name: str) -> bytes:
        return as_image_errors(lambda: self._member(name, HEAD))

    def tail(self, name: str, count: int) -> bytes:
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < count:
            return self.read(name)
        return as_image_errors(lambda: self._raw(info, info.file_size - count, count))

    def checksum(self, name: str) -> tuple[int, int]:
        """Return (CRC-32, number of bytes) from the zip's directory, without reading the file."""
        info = self._members[name]
        return info.CRC, info.file_size

    def _sniff(self, name: str) -> bytes:
        try:
            return self.head(name)
        except ImageError as e:
            raise OSError(str(e)) from e

    def _member(self, name: str, max_bytes: int | None = None) -> bytes:
        info = self._members[name]
        if info.file_size > MAX_FILE:
            raise ImageError("the file is larger than 1 GB")
        if info.flag_bits & 1:
            raise ImageError("the file is encrypted")
        if info.compress_type == zipfile.ZIP_STORED:
            data = self._raw(info, 0, info.file_size if max_bytes is None else min(max_bytes, info.file_size))
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            packed = self._raw(info, 0, info.compress_size)
            data = zlib.decompressobj(-15).decompress(packed, min(max_bytes or info.file_size, info.file_size))
        else:
            try:
                with zipfile.ZipFile(self.path) as z:
                    return z.read(info)
            except Exception as e:  # each method of compression has its own
                raise ImageError(str(e)) from e
        if max_bytes is None and (len(data) != info.file_size or zlib.crc32(data) != info.CRC):
            raise ImageError("its bytes do not match the checksum")
        return data

    def _raw(self, info: zipfile.ZipInfo, start: int, count: int) -> bytes:
        """Read stored (possibly compressed) bytes of a member."""
        file = self._file.open(self.path)
        file.seek(info.header_offset)
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise ImageError("its header in the zip is damaged")
        name_length, extra_length = struct.unpack("<HH", head[26:30])
        file.seek(info.header_offset + 30 + name_length + extra_length + start)
        data = file.read(count)
        if len(data) < count:
            raise ImageError("its data in the zip is truncated")
        return data


def header_of(
    head: bytes,  # the first HEAD bytes of an image file, or more
    read: Callable[[], bytes],  # reads the whole file
    max_pixels: int,
) -> Header:
    """Read size and channels of an image file, of all of it only if the head is not enough. Raises ImageError."""
    if reason := why_unreadable(head):
        raise ImageError(reason)
    try:
        return read_header(head, max_pixels)
    except ImageError:  # not a PNG, or a PNG with longer chunks
        return read_header(read(), max_pixels)


def as_image_errors(read: Callable[[], T]) -> T:
    """Call `read`; raise ImageError if it cannot read."""
    try:
        return read()
    except (OSError, zlib.error) as e:
        raise ImageError(getattr(e, "strerror", None) or str(e)) from e


def _bad_zip(path: Path) -> SganError:
    with open(path, "rb") as f:
        start = f.read(CONTAINER_SNIFF)
    if start[:4] == b"PK\x03\x04":
        return SganError(
            f"{path} is truncated: the directory at the end of the zip is missing.", hint="Copy or download it again."
        )
    kind, is_archive = kind_of(start) or ("neither a folder nor a zip", False)
    return SganError(
        f"{path} is {kind}.",
        hint="Unpack it, and pass the folder."
        if is_archive
        else "Pass a folder or zip of images, TFRecords or an LMDB; `sgan data pack FOLDER OUT.zip` makes such a zip.",
    )
