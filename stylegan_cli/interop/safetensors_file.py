"""Safetensors files of other programs: a JSON header with names, types, shapes and places, then the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import torch

from ..files import open_tensors
from ..pickled import Part, PickleError
from ..tensors import LazyTensor, Storage, check_sizes, rebuild_tensor

_MAX_HEADER = 1 << 26  # bytes
_OURS = "stylegan_cli"  # start of the format of our snapshots, states and tuned weights
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16} | {
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}


def is_safetensors(head: bytes) -> bool:  # the first 9 bytes of a file, or more
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def is_foreign(
    path: Path,  # of a safetensors file
) -> bool:
    """Whether it is valid, but written by another program."""
    try:
        with open_tensors(path) as f:
            return not (f.metadata() or {}).get("format", "").startswith(_OURS)
    except (safetensors.SafetensorError, OSError):
        return False


def read_safetensors(file: Part) -> dict[str, LazyTensor]:
    """The tensors by name; those of other types than a network's are omitted. Raises PickleError if it is invalid."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, len(file) - 8):
        raise PickleError("its header is truncated")
    try:
        header = json.loads(file.read(length))
        entries = [
            (name, e["dtype"], tuple(e["shape"]), e["data_offsets"]) for name, e in header.items() if "dtype" in e
        ]
        return {
            name: _tensor(Part(file.file, file.start + 8 + length), _TYPES[dtype], size, offsets)
            for name, dtype, size, offsets in entries
            if dtype in _TYPES
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise PickleError(str(e) if isinstance(e, PickleError) else "its header is damaged") from e


def _tensor(data: Part, dtype: torch.dtype, size: tuple[int, ...], offsets: list[int]) -> LazyTensor:
    first, last = offsets
    check_sizes((*size, first, last))
    if not first <= last <= len(data):
        raise PickleError("the file is truncated")
    strides, count = [], 1
    for side in reversed(size):
        strides.insert(0, count)
        count *= side
    return rebuild_tensor(Storage(dtype, Part(data.file, data.start + first, last - first)), 0, size, tuple(strides))
