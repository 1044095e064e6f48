"""Write a dataset atomically: an uncompressed zip of PNGs, named as by stylegan2-ada-pytorch, with dataset.json."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from typing import Any

from ..errors import SganError
from ..files import atomic_path
from .labels import DatasetJson, format_dataset_json
from .listing import DATASET_JSON


class DatasetWriter:
    """Adds PNG files one by one. Created by `dataset_writer`."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self.names: list[str] = []

    def add(
        self,
        png: bytes,  # content of a PNG file
    ) -> str:
        """Add the next image; return its name, such as 00000/img00000000.png."""
        number = f"{len(self.names):08d}"
        name = f"{number[:5]}/img{number}.png"
        self._store(name, png, zipfile.ZIP_STORED)
        self.names.append(name)
        return name

    def finish(
        self,
        labels: list[int] | list[list[float]] | None,  # class number or vector of every image
        attributes: dict[str, list[str]],  # by name: one value per image
        provenance: dict[str, Any],  # how the dataset was made
    ) -> None:
        """Add dataset.json. Must be called once, after all images."""
        by_name = None if labels is None else dict(zip(self.names, labels, strict=True))
        self._store(
            DATASET_JSON,
            format_dataset_json(DatasetJson(by_name, attributes, provenance)).encode(),
            zipfile.ZIP_DEFLATED,
        )

    def _store(self, name: str, data: bytes, method: int) -> None:
        entry = zipfile.ZipInfo(name)  # dated 1980, so that the same images give the same bytes
        entry.compress_type, entry.create_system, entry.external_attr = method, 3, 0o644 << 16
        self._archive.writestr(entry, data)


@contextlib.contextmanager
def dataset_writer(
    dest: str | os.PathLike,  # path of the zip
) -> Iterator[DatasetWriter]:
    """Open a DatasetWriter; the zip appears at ``dest`` if the block succeeds. Raises SganError if it cannot."""
    if os.path.isdir(dest) or not str(dest).lower().endswith(".zip"):
        raise SganError(f"{dest} is not a .zip file name.", hint="Datasets are written as zips, such as faces.zip.")
    with atomic_path(dest) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield DatasetWriter(archive)
