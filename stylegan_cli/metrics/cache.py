"""Statistics of real pictures, kept in the folder of caches so that a set is looked at once.

A file is named by the SHA-256 of all that its content depends on. It appears whole, so that two processes that make it
at once don't disturb each other, and carries a checksum: a damaged one counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch

from ..data.dataset import DataSpec
from ..errors import SganError
from ..files import atomic_path, cache_folder
from .statistics import Tensors

PROTOCOL = 1  # rises when the same pictures come to give another statistic


def statistics_path(
    data: DataSpec,
    mirror: bool,
    count: int,  # pictures
    kind: str,  # of statistic, with the key of the detector's output
    detector: str,  # name and fingerprint
) -> Path:
    size = [data.height, data.width, data.channels, data.filter]
    depends = [PROTOCOL, data.content_hash, *size, mirror, count, kind, detector]
    return cache_folder() / "statistics" / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()}.safetensors"


def load_statistics(
    path: Path,
) -> Tensors | None:
    """None if there is no such file, or no whole one."""
    try:
        with safetensors.safe_open(path, framework="pt") as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no dict)
            told = (f.metadata() or {}).get("sha256")
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors if told == _checksum(tensors) else None


def save_statistics(
    path: Path,
    tensors: Tensors,  # on the CPU
) -> None:
    """Where the folder cannot be written, or is full, nothing is kept."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with contextlib.suppress(SganError), atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"sha256": _checksum(tensors)})


def _checksum(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()
