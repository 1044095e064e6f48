"""A nested state as a safetensors file: the tensors as they are, the rest as JSON in the header. No pickle.

In the JSON a list is tagged: ["tensor", name], ["list", v, v ...], ["tuple", v, v ...], ["dict", [k, v], [k, v] ...],
["ordered", [k, v] ...] for an OrderedDict; all else stands for itself.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

_CONTAINERS = {"list": list, "tuple": tuple, "dict": dict, "ordered": OrderedDict}
_TAGS = {kind: tag for tag, kind in _CONTAINERS.items()}
_DTYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint8: "U8", torch.bool: "BOOL"},
}


def freeze(
    value: Any,  # containers of tensors, numbers, strings, booleans and None
    tensors: dict[str, Tensor],  # is added to, by name
    path: str = "",  # of the value, for names and complaints
) -> Any:  # JSON
    """What `thaw` makes the same value from. Raises TypeError on anything else, subclasses too: they would come back as
    something else."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and value.layout is torch.strided and value.dtype in _DTYPES:
        name = path.encode("ascii", "backslashreplace").decode()
        while name in tensors or name == "__metadata__":
            name += "'"
        tensors[name] = value
        return ["tensor", name]
    if kind in (list, tuple):
        return [_TAGS[kind], *(freeze(v, tensors, f"{path}.{i}") for i, v in enumerate(value))]
    if isinstance(value, dict) and kind in (dict, OrderedDict):
        below = f"{path}." if path else ""
        pairs = ([freeze(k, tensors), freeze(v, tensors, f"{below}{k}")] for k, v in value.items())
        return [_TAGS[kind], *pairs]
    what = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else kind.__name__
    raise TypeError(f"a training state cannot hold {what}, as {path} does")


def thaw(
    value: Any,  # what `freeze` gave
    tensors: dict[str, Tensor],  # by name
) -> Any:
    if not isinstance(value, list):
        return value
    tag, *content = value
    if tag == "tensor":
        return tensors[content[0]]
    if tag in ("list", "tuple"):
        return _CONTAINERS[tag](thaw(v, tensors) for v in content)
    return _CONTAINERS[tag]((thaw(k, tensors), thaw(v, tensors)) for k, v in content)


def layout(
    tensors: dict[str, Tensor],  # by name
    texts: dict[str, str],  # what else the header shall say
) -> tuple[bytes, dict[str, slice]]:
    """The header of a safetensors file, and where each tensor's bytes stand after it, the last one's at the end.

    Wide elements come first, so that each stands at a multiple of its size.
    """
    entries: dict[str, Any] = {"__metadata__": texts}
    places, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        begin, end = end, end + tensor.numel() * tensor.itemsize
        places[name] = slice(begin, end)
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places
