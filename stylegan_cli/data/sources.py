"""Where image files lie: a folder or a zip. Both are read by name, from any thread or process."""

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
from ..files import nearest_path
from .codec import HEAD, SUFFIXES, Header, ImageError, decode, read_header

MAX_FILE = 1 << 30  # bytes of one image file: larger ones are refused unread
RECORD = "dataset.json"


class _Files:
    """What folder and zip share: images from bytes."""

    names: list[str]  # of the image files, sorted

    def header(self, name: str, max_pixels: int) -> Header:
        """Size and channels. Raises ImageError if it is no image, or one of too many pixels."""
        head = self.head(name)
        try:
            return read_header(head, max_pixels)
        except ImageError:  # not a PNG, or one whose chunks go on for longer
            return read_header(self.read(name), max_pixels)

    def image(self, name: str, max_pixels: int) -> Image.Image:
        """The image in mode L, RGB or RGBA. Raises ImageError."""
        return decode(self.read(name), max_pixels)

    def read(self, name: str) -> bytes:
        """The whole file. Raises ImageError."""
        raise NotImplementedError

    def head(self, name: str) -> bytes:
        """The first HEAD bytes, or more. Raises ImageError."""
        raise NotImplementedError


class FolderSource(_Files):
    """A folder of image files, searched through to the bottom."""

    def __init__(self, path: Path):
        self.path = path
        found = []
        for folder, folders, files in os.walk(path):
            folders[:] = [f for f in folders if not f.startswith(".")]
            found += [Path(folder, f).relative_to(path).as_posix() for f in files]
        self.names = sorted(n for n in found if _is_image(n))  # paths with '/', relative to the folder

    def read(self, name: str) -> bytes:
        return _guarded(lambda: self._bytes(name, MAX_FILE + 1))

    def head(self, name: str) -> bytes:
        return _guarded(lambda: self._bytes(name, HEAD))

    def tail(self, name: str) -> bytes:
        """The last 12 bytes or more."""
        return self.read(name)[-12:]

    def checksum(self, name: str) -> tuple[int, int]:
        """(CRC-32, number of bytes)."""
        data = self.read(name)
        return zlib.crc32(data), len(data)

    def record(self) -> bytes | None:
        """The set's dataset.json, if there is one."""
        path = self.path / RECORD
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as e:
            raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e

    def _bytes(self, name: str, most: int) -> bytes:
        with open(self.path / name, "rb") as f:
            data = f.read(most)
        if len(data) > MAX_FILE:
            raise ImageError("the file is larger than 1 GB")
        return data


class ZipSource(_Files):
    """A zip of image files. Members are read by hand, a handle per thread: benchmarks/bench_data.py."""

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

    def __getstate__(self):  # handles stay behind when the source goes to another process
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state):
        self.__dict__.update(state, _local=threading.local())

    def read(self, name: str) -> bytes:
        return _guarded(lambda: self._member(name))

    def head(self, name: str) -> bytes:
        return _guarded(lambda: self._member(name, HEAD))

    def tail(self, name: str) -> bytes:
        """The last 12 bytes or more."""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < 12:
            return self.read(name)
        return _guarded(lambda: self._raw(info, info.file_size - 12, 12))

    def checksum(self, name: str) -> tuple[int, int]:
        """(CRC-32, number of bytes), from the zip's directory: nothing is read."""
        info = self._members[name]
        return info.CRC, info.file_size

    def record(self) -> bytes | None:
        """The set's dataset.json, if there is one."""
        try:
            return self.read(RECORD) if RECORD in self._members else None
        except ImageError as e:
            raise SganError(f"Cannot read {RECORD} in {self.path}: {e}.") from e

    def _member(self, name: str, most: int | None = None) -> bytes:
        info = self._members[name]
        if info.file_size > MAX_FILE:
            raise ImageError("the file is larger than 1 GB")
        if info.flag_bits & 1:
            raise ImageError("the file is encrypted")
        if info.compress_type == zipfile.ZIP_STORED:
            data = self._raw(info, 0, info.file_size if most is None else min(most, info.file_size))
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            packed = self._raw(info, 0, info.compress_size)
            data = zlib.decompressobj(-15).decompress(packed, min(most or info.file_size, info.file_size))
        else:
            with zipfile.ZipFile(self.path) as z:
                return z.read(name)
        if most is None and (len(data) != info.file_size or zlib.crc32(data) != info.CRC):
            raise ImageError("the bytes do not match their checksum")
        return data

    def _raw(self, info: zipfile.ZipInfo, start: int, count: int) -> bytes:
        """Bytes of a member as they are stored."""
        file = self._handle()
        file.seek(info.header_offset)
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise ImageError("the zip is damaged here")
        name_length, extra_length = struct.unpack("<HH", head[26:30])
        file.seek(info.header_offset + 30 + name_length + extra_length + start)
        data = file.read(count)
        if len(data) < count:
            raise ImageError("the zip is cut short here")
        return data

    def _handle(self) -> BinaryIO:
        if getattr(self._local, "pid", None) != os.getpid():  # a forked process must not share the file's position
            self._local.file, self._local.pid = open(self.path, "rb"), os.getpid()  # noqa: SIM115 (kept open)
        return self._local.file


def open_source(
    path: str | os.PathLike,  # a folder or a zip
) -> FolderSource | ZipSource:
    """The images there. Raises SganError if nothing is there, if it is no zip, or if it holds no image."""
    path = Path(path)
    if not path.exists():
        raise SganError(f"{path} does not exist.", hint=nearest_path(path))
    source = FolderSource(path) if path.is_dir() else ZipSource(path)
    if not source.names:
        raise SganError(f"{path} holds no images.", hint="Known endings: " + " ".join(SUFFIXES) + ".")
    return source


def first_three(
    names: list[str],
) -> str:
    """'a, b, c and 5 more'."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(p.startswith(".") or p == "__MACOSX" for p in parts)


def _guarded(read):
    try:
        return read()
    except (OSError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as e:
        raise ImageError(getattr(e, "strerror", None) or str(e)) from e


def _bad_zip(path: Path) -> SganError:
    with open(path, "rb") as f:
        start = f.read(4)
    if start == b"PK\x03\x04":
        return SganError(f"{path} is cut short: its directory, the end of the zip, is missing.", hint="Copy it again.")
    return SganError(
        f"{path} is neither a folder nor a zip.",
        hint="Give a folder or a zip of images; `sgan data pack FOLDER OUT.zip` makes such a zip.",
    )
