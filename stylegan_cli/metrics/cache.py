"""Statistics of real pictures, kept in the folder of caches so that a set is looked at once."""

from __future__ import annotations

import contextlib

from .. import cache
from ..data.dataset import DataSpec
from ..errors import SganError
from .statistics import Tensors

KIND = "statistics"
PROTOCOL = 1  # rises when the same pictures come to give another statistic


def statistics_key(
    data: DataSpec,
    mirror: bool,
    count: int,  # pictures
    kind: str,  # of statistic, with the key of the detector's output
    detector: str,  # name and fingerprint
) -> str:
    size = [data.height, data.width, data.channels, data.filter]
    return cache.key(PROTOCOL, data.content_hash, *size, mirror, count, kind, detector)


def load_statistics(
    key: str,
) -> Tensors | None:
    """None if they are not kept."""
    kept = cache.load(KIND, key)
    return kept and kept.tensors


def save_statistics(
    key: str,
    tensors: Tensors,  # on the CPU
) -> None:
    """Where the folder cannot be written, or is full, nothing is kept."""
    with contextlib.suppress(SganError):
        cache.store(KIND, key, tensors)
