"""Open a source of images of any kind."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SganError
from ..files import existing_path
from .arrays import ArraySource
from .formats import FORMATS, LMDB, SNIFF, TFRECORDS, container_of
from .listing import first_three, with_reasons
from .lmdbs import LmdbSource
from .sources import FolderSource, Source, ZipSource
from .tfrecords import TFRecordSource


def open_source(
    path: str | os.PathLike,  # folder, zip, .npz, .npy, TFRecords or LMDB
    size: tuple[int, int] | None = None,  # (height, width) to choose if images are stored in several; else the largest
) -> Source:
    """Open a source. Raises SganError if the path does not exist, is none of these, or contains no images."""
    path = existing_path(path)
    source = _open_folder(path, size) if path.is_dir() else _open_file(path, size)
    if not source.names:
        others = with_reasons(source.listing.ignored)
        contents = f", only {first_three(others)}" if others else ""
        raise SganError(f"{path} contains no images{contents}.", hint=f"Supported formats: {', '.join(FORMATS)}.")
    return source


def _open_folder(path: Path, size: tuple[int, int] | None) -> Source:
    """Open image files; without any, TFRecords or an LMDB in the folder."""
    source = FolderSource(path)
    others = dict(source.listing.ignored)
    records, databases = ([n for n, reason in others.items() if reason == kind] for kind in (TFRECORDS, LMDB))
    if source.names or not (records or databases):
        return source
    if len(databases) > 1 or records and databases:
        raise SganError(
            f"{path} has more than one dataset: {first_three([*databases, *records])}.", hint="Pass one of them."
        )
    if records:
        return TFRecordSource(path, records, others, size)
    others.pop(databases[0])
    others.pop(databases[0].removesuffix("data.mdb") + "lock.mdb", None)
    return LmdbSource(path / databases[0], others, size)


def _open_file(path: Path, size: tuple[int, int] | None) -> Source:
    if path.suffix.lower() in (".npz", ".npy"):
        return ArraySource(path)
    try:
        with open(path, "rb") as f:
            kind = container_of(path.name, f.read(SNIFF))
    except OSError as e:
        raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e
    if kind == TFRECORDS:
        return TFRecordSource(path.parent, [path.name], {}, size)
    return LmdbSource(path, {}, size) if kind == LMDB else ZipSource(path)
