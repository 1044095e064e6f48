"""Getting a public model: downloaded, checked and converted to a snapshot in the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from .. import cache
from ..download import fetch
from ..errors import SganError
from ..files import write_atomic
from ..snapshot import read_info
from ..version import __version__
from .conversion import convert
from .opening import open_model
from .zoo import PublicModel, converted, snapshot_places


def get_public(
    model: PublicModel,
    announce: Callable[[PublicModel], None],  # called before the download, if one is necessary
) -> Path:
    """The snapshot of a public model in the cache. One of another version of this program is converted again if the
    download is still there.

    A hash that nobody published is recorded beside the first download; later ones must have it. Raises SganError if
    the download fails or has another hash, or if the file is not a model.
    """
    with cache.claim("models", model.name):
        snapshot, download = converted(model), _downloaded(model)
        if snapshot and (version := _version(snapshot)) and (version == __version__ or download is None):
            return snapshot
        if download is None:
            announce(model)
            download = _download(model)
        path, sha256 = snapshot_places(model)[-1], _checked(download, model)
        try:
            convert(open_model(download), path, sha256=sha256)
        except SganError as e:
            kept = f"The download is kept; to download it again, remove {download}."
            raise SganError(str(e), hint=" ".join(filter(None, [e.hint, kept]))) from e
        if not model.sha256:
            write_atomic(_record(download), f"{sha256}  {download.name}\n")
        return path


def _version(snapshot: Path) -> str | None:
    """The version of the program that wrote it; None if it is damaged."""
    with contextlib.suppress(SganError):
        return read_info(snapshot).version
    return None


def _downloaded(model: PublicModel) -> Path | None:
    return next((p for place in cache.places("downloads") if (p := place / model.file).is_file()), None)


def _record(download: Path) -> Path:
    """The file with the hash of the first download, as `sha256sum` writes it."""
    return download.with_name(f"{download.name}.sha256")


def _expected(model: PublicModel, record: Path) -> str | None:
    """The hash that the file must have; None if it is not known."""
    if model.sha256:
        return model.sha256
    return record.read_text(encoding="utf-8", errors="replace").partition(" ")[0] if record.is_file() else None


def _download(model: PublicModel) -> Path:
    record = _record(cache.places("downloads")[-1] / model.file)
    expected = _expected(model, record)
    try:
        return fetch(model.url, expected, model.file)
    except SganError as e:
        if model.sha256 or expected is None or "SHA-256" not in str(e):
            raise
        raise SganError(str(e), hint=_replaced(record)) from e


def _checked(download: Path, model: PublicModel) -> str:
    """The hash of the download. Raises SganError if it must have another one."""
    actual, record = cache.sha256_of(download), _record(download)
    expected = _expected(model, record)
    if expected and actual != expected:
        hint = f"Put the right file there, or remove it and run `sgan model get {model.name}` again."
        message = f"{download} has the SHA-256 {actual}, not {expected}."
        raise SganError(message, hint=hint if model.sha256 else _replaced(record))
    return actual


def _replaced(record: Path) -> str:
    return f"The first download had the other hash. If its authors replaced the file, remove {record} and run again."
