"""Write a set: an uncompressed zip of PNGs named as the field names them, with dataset.json, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from typing import Any

from ..errors import SganError
from ..files import atomic_path
from .labels import Record, write_record
from .sources import RECORD


class SetWriter:
    """Takes PNG files one by one. Made by `writing`."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self.names: list[str] = []

    def add(
        self,
        png: bytes,  # a PNG file
    ) -> str:
        """Store the next image; gives its name, 00000/img00000000.png and so on."""
        number = f"{len(self.names):08d}"
        name = f"{number[:5]}/img{number}.png"
        self._store(name, png, zipfile.ZIP_STORED)
        self.names.append(name)
        return name

    def finish(
        self,
        labels: list[int] | None,  # class number of every image
        attributes: dict[str, list[str]],  # per attribute, one value an image
        made: dict[str, Any],  # how the set was made
    ) -> None:
        """Store dataset.json. Call it last, once."""
        by_name = None if labels is None else dict(zip(self.names, labels, strict=True))
        self._store(RECORD, write_record(Record(by_name, attributes, made)).encode(), zipfile.ZIP_DEFLATED)

    def _store(self, name: str, data: bytes, method: int) -> None:
        entry = zipfile.ZipInfo(name)  # dated 1980, so that equal images give equal files
        entry.compress_type, entry.create_system, entry.external_attr = method, 3, 0o644 << 16
        self._archive.writestr(entry, data)


@contextlib.contextmanager
def writing(
    dest: str | os.PathLike,  # the zip to write
) -> Iterator[SetWriter]:
    """A SetWriter whose zip appears under ``dest`` when the block ends well. Raises SganError if it cannot."""
    if os.path.isdir(dest) or not str(dest).lower().endswith(".zip"):
        raise SganError(f"{dest} is no name for a set.", hint="Name a file that ends in .zip.")
    with atomic_path(dest) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield SetWriter(archive)
