"""Finding models, and converting checkpoints to snapshots."""

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
from .opening import checkpoint_info, is_snapshot, open_model
from .zoo import locate_public

_READERS_VERSION = 1  # increased when a reader changes its result for the same file
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as in PyTorch's hub: the first digits of the SHA-256


def find_model(
    # a file, a run folder, the name of a public model, or a URL; None: the newest of `runs`, else the bundled one
    model: str | os.PathLike | None,
    runs: str | os.PathLike = "runs",  # the folder of all runs
) -> tuple[Path, str]:
    """Find a model file, and a sentence that says which one it is.

    Raises SganError if the file does not exist, cannot be downloaded or is a public model that is not in the cache, or
    if the folder has no snapshot.
    """
    return folders.find_model(None if model is None else locate(os.fspath(model)), runs)


def locate(
    model: str,  # a path, the name of a public model, or a URL
) -> Path:
    """The local path of a model. A URL is downloaded once, and verified if its file name contains its hash. A public
    model must be in the cache; a file or folder of its name has precedence.

    Raises SganError if the download fails, or if the public model is not in the cache.
    """
    if not re.match(r"https?://", model):
        return Path(model) if os.path.lexists(model) else locate_public(model) or Path(model)
    name = re.sub(r"[^\w.-]", "_", model.split("?")[0].rstrip("/").rpartition("/")[2]) or "model"
    match = _HASH_IN_NAME.search(name)
    sha256 = match[1] if match and len(match[1]) == 64 else None
    path = fetch(model, sha256, name if sha256 else f"{cache.key(model)[:12]}-{name}")
    if match and not (actual := cache.sha256_of(path)).startswith(match[1]):
        path.unlink()
        raise SganError(f"{model} has the SHA-256 {actual}, not {match[1]} as in its name; the download was discarded.")
    return path


def model_info(
    path: Path,
) -> SnapshotInfo:
    """Read the description of a model without its weights. Raises SganError if the file is not a model."""
    return read_info(path) if is_snapshot(path) else checkpoint_info(path)[0]


def conversion_notes(
    path: Path,
) -> tuple[str, ...]:
    """What is omitted or guessed when a checkpoint is converted."""
    return () if is_snapshot(path) else checkpoint_info(path)[1]


def ensure_snapshot(
    path: Path,
) -> Path:
    """The file itself if it is a snapshot, else a snapshot in the cache that is converted from it."""
    if is_snapshot(path):
        return path
    sha256 = cache.sha256_of(path)
    key = cache.key(sha256, __version__, _READERS_VERSION)
    with cache.claim("conversions", key):
        return cache.find("conversions", key) or cache.store_file(
            "conversions", key, lambda draft: convert(open_model(path), draft, sha256=sha256)
        )


def convert(
    model: Snapshot,
    out: Path,  # .safetensors
    *,
    sha256: str | None = None,  # of the file that the model was read from; None: calculated
    dtype: torch.dtype | None = None,  # precision of the stored tensors; None: unchanged
    discriminator: bool = True,  # whether to include it
) -> None:
    """Write a model as a snapshot that records its origin. Raises SganError if the file cannot be written."""
    info = model.info
    if not is_snapshot(model.path):
        sha256 = sha256 or cache.sha256_of(model.path)
        info = dataclasses.replace(info, origin=f"{info.origin}, SHA-256 {sha256}")
    save_snapshot(out, model.G, model.D if discriminator else None, info, dtype)


def written_by(
    path: Path,
) -> str:
    """The program that wrote a file, for the user."""
    if not is_snapshot(path):
        return checkpoint_info(path)[0].origin
    with open_tensors(path) as f:
        info = json.loads((f.metadata() or {}).get("info", "{}"))
    return f"snapshot of stylegan_cli {info.get('version', '')}".strip()
