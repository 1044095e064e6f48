"""Sources of image files: a folder or a zip. Both are read by name, from any thread or process."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image

from ..errors import SganError
from ..files import suggest_path
from .codec import HEAD, SUFFIXES, Header, ImageError, decode, read_header

MAX_FILE = 1 << 30  # bytes of an image file: larger ones are rejected
DATASET_JSON = "dataset.json"


class _Files:
    """Base class of folders and zips: decodes images from bytes."""

    names: list[str]  # sorted names of the image files

    def header(self, name: str, max_pixels: int) -> Header:
        """Read size and channels. Raises ImageError if the file is not an image or has too many pixels."""
        head = self.head(name)
        try:
            return read_header(head, max_pixels)
        except ImageError:  # not a PNG, or a PNG with longer chunks
            return read_header(self.read(name), max_pixels)

    def image(self, name: str, max_pixels: int) -> Image.Image:
        """Decode the image, in mode L, RGB or RGBA. Raises ImageError."""
        return decode(self.read(name), max_pixels)

    def read(self, name: str) -> bytes:
        """Read the whole file. Raises ImageError."""
        raise NotImplementedError

    def head(self, name: str) -> bytes:
        """Read the first HEAD bytes, or more. Raises ImageError."""
        raise NotImplementedError


class FolderSource(_Files):
    """A folder of image files, searched recursively."""

    def __init__(self, path: Path):
        self.path = path
        names = []
        for folder, subfolders, files in os.walk(path):
            subfolders[:] = [f for f in subfolders if not f.startswith(".")]
            names += [Path(folder, f).relative_to(path).as_posix() for f in files]
        self.names = sorted(n for n in names if _is_image(n))  # paths with '/', relative to the folder

    def read(self, name: str) -> bytes:
        return _as_image_errors(lambda: self._bytes(name, MAX_FILE + 1))

    def head(self, name: str) -> bytes:
        return _as_image_errors(lambda: self._bytes(name, HEAD))

    def tail(self, name: str) -> bytes:
        """Read the last 12 bytes."""
        return self.read(name)[-12:]

    def checksum(self, name: str) -> tuple[int, int]:
        """Return (CRC-32, number of bytes)."""
        data = self.read(name)
        return zlib.crc32(data), len(data)

    def dataset_json(self) -> bytes | None:
        """Read dataset.json, if there is one."""
        path = self.path / DATASET_JSON
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as e:
            raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e

    def _bytes(self, name: str, max_bytes: int) -> bytes:
        with open(self.path / name, "rb") as f:
            data = f.read(max_bytes)
        if len(data) > MAX_FILE:
            raise ImageError("the file is larger than 1 GB")
        return data


class ZipSource(_Files):
    """A zip of image files. Reads members without zipfile, for speed: see benchmarks/bench_data.py."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as z:
                self._members = {i.filename: i for i in z.infolist() if not i.is_dir()}
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as e:
            raise _bad_zip(path) from e
        except OSError as e:
            raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e
        self.names = sorted(n for n in self._members if _is_image(n))
        self._local = threading.local()

    def __getstate__(self):  # file handles cannot be sent to another process
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state):
        self.__dict__.update(state, _local=threading.local())

    def read(self, name: str) -> bytes:
        return _as_image_errors(lambda: self._member(name))

    def head(self, name: str) -> bytes:
        return _as_image_errors(lambda: self._member(name, HEAD))

    def tail(self, name: str) -> bytes:
        """Read the last 12 bytes."""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < 12:
            return self.read(name)
        return _as_image_errors(lambda: self._raw(info, info.file_size - 12, 12))

    def checksum(self, name: str) -> tuple[int, int]:
        """Return (CRC-32, number of bytes) from the zip's directory, without reading the file."""
        info = self._members[name]
        return info.CRC, info.file_size

    def dataset_json(self) -> bytes | None:
        """Read dataset.json, if there is one."""
        try:
            return self.read(DATASET_JSON) if DATASET_JSON in self._members else None
        except ImageError as e:
            raise SganError(f"Cannot read {DATASET_JSON} in {self.path}: {e}.") from e

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
            with zipfile.ZipFile(self.path) as z:
                return z.read(name)
        if max_bytes is None and (len(data) != info.file_size or zlib.crc32(data) != info.CRC):
            raise ImageError("its bytes do not match the checksum")
        return data

    def _raw(self, info: zipfile.ZipInfo, start: int, count: int) -> bytes:
        """Read stored (possibly compressed) bytes of a member."""
        file = self._handle()
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

    def _handle(self) -> BinaryIO:
        if getattr(self._local, "pid", None) != os.getpid():  # a forked process would share the file position
            self._local.file, self._local.pid = open(self.path, "rb"), os.getpid()  # noqa: SIM115 (stays open)
        return self._local.file


def open_source(
    path: str | os.PathLike,  # folder or zip
) -> FolderSource | ZipSource:
    """Open a source. Raises SganError if the path does not exist, is not a zip, or contains no images."""
    path = Path(path)
    if not path.exists():
        raise SganError(f"{path} does not exist.", hint=suggest_path(path))
    source = FolderSource(path) if path.is_dir() else ZipSource(path)
    if not source.names:
        raise SganError(f"{path} contains no images.", hint="Supported suffixes: " + " ".join(SUFFIXES) + ".")
    return source


def first_three(
    names: list[str],
) -> str:
    """Format names as 'a, b, c and 5 more'."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(p.startswith(".") or p == "__MACOSX" for p in parts)


def _as_image_errors(read):
    try:
        return read()
    except (OSError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as e:
        raise ImageError(getattr(e, "strerror", None) or str(e)) from e


def _bad_zip(path: Path) -> SganError:
    with open(path, "rb") as f:
        start = f.read(4)
    if start == b"PK\x03\x04":
        return SganError(
            f"{path} is truncated: the directory at the end of the zip is missing.", hint="Copy or download it again."
        )
    return SganError(
        f"{path} is neither a folder nor a zip.",
        hint="Pass a folder or a zip of images; `sgan data pack FOLDER OUT.zip` makes such a zip.",
    )
