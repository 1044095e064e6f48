"""A nested state as a safetensors file: tensors as tensors, everything else as JSON in the header. No pickle.

In the JSON a list is tagged: ["tensor", name], ["list", v, v ...], ["tuple", v, v ...], ["dict", [k, v], [k, v] ...],
["ordered", [k, v] ...] for an OrderedDict; all other values are plain JSON.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

_CONTAINERS = {"list": list, "tuple": tuple, "dict": dict, "ordered": OrderedDict}
_TAGS = {container: tag for tag, container in _CONTAINERS.items()}
_DTYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint8: "U8", torch.bool: "BOOL"},
}


def encode(
    value: Any,  # containers of tensors, numbers, strings, booleans and None
    tensors: dict[str, Tensor],  # name -> tensor, extended in place
    path: str = "",  # of the value, for tensor names and error messages
) -> Any:  # JSON
    """Encode a value for `decode`. Raises TypeError for any other type, subclasses included, as it would not survive
    the round trip."""
    value_type = type(value)
    if value is None or value_type in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and value.layout is torch.strided and value.dtype in _DTYPES:
        name = path.encode("ascii", "backslashreplace").decode()
        while name in tensors or name == "__metadata__":
            name += "'"
        tensors[name] = value
        return ["tensor", name]
    if value_type in (list, tuple):
        return [_TAGS[value_type], *(encode(v, tensors, f"{path}.{i}") for i, v in enumerate(value))]
    if isinstance(value, dict) and value_type in (dict, OrderedDict):
        below = f"{path}." if path else ""
        pairs = ([encode(k, tensors), encode(v, tensors, f"{below}{k}")] for k, v in value.items())
        return [_TAGS[value_type], *pairs]
    description = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else value_type.__name__
    raise TypeError(f"{path} cannot be saved in a training state: unsupported type {description}")


def decode(
    value: Any,  # from `encode`
    tensors: dict[str, Tensor],  # name -> tensor
) -> Any:
    """Rebuild the value that `encode` was called with."""
    if not isinstance(value, list):
        return value
    tag, *content = value
    if tag == "tensor":
        return tensors[content[0]]
    if tag in ("list", "tuple"):
        return _CONTAINERS[tag](decode(v, tensors) for v in content)
    return _CONTAINERS[tag]((decode(k, tensors), decode(v, tensors)) for k, v in content)


def file_layout(
    tensors: dict[str, Tensor],  # name -> tensor
    texts: dict[str, str],  # metadata of the header
) -> tuple[bytes, dict[str, slice]]:
    """Return the header of a safetensors file, and each tensor's byte range after it, without gaps.

    Tensors with wide elements come first, so that each is aligned to its element size.
    """
    entries: dict[str, Any] = {"__metadata__": texts}
    ranges, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        begin, end = end, end + tensor.numel() * tensor.itemsize
        ranges[name] = slice(begin, end)
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, ranges
