"""From any checkpoint to a snapshot, and from a model to the formats that others read."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import torch

from .. import cache
from ..download import fetch
from ..errors import SganError
from ..files import open_tensors
from ..runs import folders
from ..snapshot import Snapshot, SnapshotInfo, read_info, save_snapshot
from ..version import __version__
from .opening import foreign_info, is_snapshot, open_model

_READERS = 1  # rises when a reader comes to read the same file otherwise
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # the convention of PyTorch's hub: the SHA-256 begins so


def find_model(
    model: str | os.PathLike | None,  # a file, a run folder, an address; None: the newest of `runs`, else packaged
    runs: str | os.PathLike = "runs",  # the folder of all runs
) -> tuple[Path, str]:
    """The model file that is meant, and a sentence that says which it is: all that is opened is found here.

    Raises SganError if there is no such file, it cannot be downloaded, or the folder holds no snapshot.
    """
    return folders.find_model(None if model is None else located(os.fspath(model)), runs)


def located(
    model: str,  # a path, or an address
) -> Path:
    """The file or folder itself; what is on the network is downloaded once, and checked where its name holds its hash.

    Raises SganError if it cannot be had.
    """
    if not re.match(r"https?://", model):
        return Path(model)
    name = re.sub(r"[^\w.-]", "_", model.split("?")[0].rstrip("/").rpartition("/")[2]) or "model"
    said = _HASH_IN_NAME.search(name)
    whole = said[1] if said and len(said[1]) == 64 else None
    path = fetch(model, whole, name if whole else f"{cache.key(model)[:12]}-{name}")
    if said and not (found := cache.sha256_of(path)).startswith(said[1]):
        path.unlink()
        raise SganError(f"What {model} sent has the SHA-256 {found}, not the {said[1]} of its name; it was not kept.")
    return path


def model_info(
    path: Path,
) -> SnapshotInfo:
    """What a file says about its model, without its weights. Raises SganError if it is none."""
    return read_info(path) if is_snapshot(path) else foreign_info(path)[0]


def notes_on(
    path: Path,
) -> tuple[str, ...]:
    """What of a checkpoint is lost here, or was guessed."""
    return () if is_snapshot(path) else foreign_info(path)[1]


def as_snapshot(
    path: Path,
) -> Path:
    """The file itself if it is a snapshot; else a snapshot of it in the cache, made once."""
    if is_snapshot(path):
        return path
    sha256 = cache.sha256_of(path)
    key = cache.key(sha256, __version__, _READERS)
    with cache.claim("conversions", key):
        return cache.find("conversions", key) or cache.store_file(
            "conversions", key, lambda draft: convert(open_model(path), draft, sha256=sha256)
        )


def convert(
    model: Snapshot,
    out: Path,  # .safetensors
    *,
    sha256: str | None = None,  # of the file that the model was read from; None: it is calculated
    dtype: torch.dtype | None = None,  # that tensors are stored in; None: as they are
    discriminator: bool = True,  # keep it
) -> None:
    """Write a snapshot that says where it came from. Raises SganError if the file cannot be written."""
    info = model.info
    if not is_snapshot(model.path):
        sha256 = sha256 or cache.sha256_of(model.path)
        info = dataclasses.replace(info, origin=f"{info.origin}, SHA-256 {sha256}")
    save_snapshot(out, model.G, model.D if discriminator else None, info, dtype)


def written_by(
    path: Path,
) -> str:
    """What wrote the file, for the reader."""
    if not is_snapshot(path):
        return foreign_info(path)[0].origin
    with open_tensors(path) as f:
        info = json.loads((f.metadata() or {}).get("info", "{}"))
    return f"snapshot of stylegan_cli {info.get('version', '')}".strip()
