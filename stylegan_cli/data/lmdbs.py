"""Encoded images in an LMDB, as prepare_data.py of rosinality's StyleGAN2 writes them.

Keys are SIZE-INDEX, such as 256-00012, for each of several sizes, and `length`, the number of images. Without such
keys, as in the LMDBs of LSUN, every value that is an image is one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ..errors import SganError
from .codec import HEAD, ImageError
from .formats import NOT_AN_IMAGE, SNIFF, format_of
from .listing import SAME_IMAGES, Listing
from .sources import Source

_MAX_MISSING = 1_000_000  # of images: more are taken for a mistake in their number
# An LMDB may be open only once in a process, and again in none of its forks. By device and inode.
_environments: WeakValueDictionary[tuple[int, int], Any] = WeakValueDictionary()


class LmdbSource(Source):
    """The images of one size."""

    def __init__(
        self,
        path: Path,  # of the file data.mdb
        ignored: dict[str, str],  # other files, with the reason
        size: tuple[int, int] | None,  # to choose, if it is there; else the largest
    ):
        self.path = path
        self._environment: Any = None
        with self._reading("it is not an LMDB, or damaged") as transaction:
            if _aborts(lambda: sum(1 for _ in transaction.cursor())):
                raise SganError(f"{path} is damaged.", hint="Copy or download it again.")
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
            sides = {int(match[1]) for key in keys if (match := re.fullmatch(rb"(\d+)-\d+", key))}
            if sides:
                images, others = _of_one_size(keys, sides, size, bytes(transaction.get(b"length", b"0")))
            else:
                formats = {_text(bytes(key)): format_of(bytes(value[:SNIFF])) for key, value in transaction.cursor()}
                images = [name for name, format in formats.items() if format]
                others = {name: NOT_AN_IMAGE for name, format in formats.items() if not format}
        self.listing = Listing(images, {**ignored, **others}, None, [])

    def __getstate__(self):
        return {**self.__dict__, "_environment": None}

    def read(self, name: str) -> bytes:
        return self._value(name)

    def head(self, name: str) -> bytes:
        return self._value(name, HEAD)

    def check_end(self, name: str) -> None:
        """Raise ImageError if a PNG is truncated. Decoding all others would take too long."""
        if format_of(self.head(name)) == "PNG":
            super().check_end(name)

    def _value(self, name: str, max_bytes: int | None = None) -> bytes:
        try:
            with self._reading("it is damaged") as transaction:
                value = transaction.get(name.encode("utf-8", "surrogateescape"))
                if value is None:
                    raise ImageError("it is missing")
                return bytes(value[:max_bytes])
        except SganError as e:
            raise ImageError(str(e)) from e

    @contextlib.contextmanager
    def _reading(self, problem: str) -> Iterator[Any]:
        """Open the LMDB and a transaction. Errors of LMDB are raised as SganError."""
        import lmdb

        try:
            if self._environment is None:
                self._environment = _open(self.path)
            with self._environment.begin(buffers=True) as transaction:
                yield transaction
        except (lmdb.Error, OSError) as e:
            raise SganError(f"{self.path} cannot be read: {problem} ({e}).") from e


def _of_one_size(
    keys: list[bytes],
    sides: set[int],
    size: tuple[int, int] | None,
    length: bytes,  # what is stored as the number of images
) -> tuple[list[str], dict[str, str]]:
    """Return the names of the images, even of missing ones, and the keys that are not taken."""
    side = size[0] if size and size[0] == size[1] and size[0] in sides else max(sides)
    of_side, others, seen = {}, {}, set()
    for key in keys:
        if not (match := re.fullmatch(rb"(\d+)-(\d+)", key)):
            others[_text(key)] = "its key is not SIZE-INDEX"
            continue
        seen.add(int(match[2]))
        if int(match[1]) == side:
            of_side[key.decode()] = int(match[2])
        else:
            others[f"{int(match[1])}-*"] = SAME_IMAGES
    if length.isdigit() and len(length) < 20 and int(length) < len(of_side) + _MAX_MISSING:
        seen.update(range(int(length)))
        others.pop("length", None)
    elif "length" in others:
        others["length"] = "it is not a number of images"
    missing = {f"{side}-{i:05d}": i for i in seen.difference(of_side.values())}
    return sorted(of_side | missing, key=lambda name: (int(name.split("-")[1]), name)), others


def _aborts(work: Callable[[], object]) -> bool:
    """Whether a process dies of it, as LMDB's do of some damaged files while they list the keys: a fork tries."""
    if sys.platform != "linux":
        return False
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _open(path: Path) -> Any:
    """Open the LMDB, or return it if it is open. Raises SganError if its end is missing, which LMDB does not notice."""
    import lmdb

    stat = os.stat(path)
    environment = _environments.get((stat.st_dev, stat.st_ino))
    if environment is None:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if stat.st_size < size:
            environment.close()
            raise SganError(
                f"{path} is truncated: it has {stat.st_size} of {size} bytes.", hint="Copy or download it again."
            )
        _environments[stat.st_dev, stat.st_ino] = environment
    return environment
