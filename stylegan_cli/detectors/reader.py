"""Files of weights as named tensors, whoever wrote them. No byte of a file is run.

- `torch.save`, old and new: through PyTorch's own restricted reader.
- TorchScript: a zip whose data.pkl describes a tree of modules, with one entry per storage; its code is left unread.
- Dictionaries of numpy arrays in a pickle, as the JAX ports keep them.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..pickled import Name, PickleError, read_pickle

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before it wrote zips
_MAX_PICKLE = 1 << 26  # bytes that describe the modules of a TorchScript file
_MAX_NAME = 1000  # characters: nested names grow with their depth, and there is one per tensor
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def read_tensors(
    path: Path,
) -> dict[str, Tensor]:  # the name with a dot between its parts -> the tensor, on the CPU
    """All tensors of a file of weights. Raises SganError if it is not there, or none of the formats."""
    if not path.is_file():
        raise SganError(f"There is no file {path}.")
    try:
        return dict(_flat(_read(path)))
    except Exception as e:  # torch.load and zipfile raise a dozen kinds
        what = str(e).strip().split("\n")[0].rstrip(".")
        raise SganError(f"{path} cannot be read as a file of weights ({what or type(e).__name__}).") from e


def _read(path: Path) -> Any:
    """A tree of tensors, by what the file begins with."""
    with open(path, "rb") as f:
        beginning = f.read(len(_LEGACY))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as z:
            _check_sizes(z, path.stat().st_size)
            if root := _torchscript_root(z):
                return _read_torchscript(z, root)
    elif not beginning.startswith(b"\x80"):
        raise PickleError("it is neither a zip nor a pickle")
    elif beginning != _LEGACY:
        return _read_numpy(path.read_bytes())
    return torch.load(path, map_location="cpu", weights_only=True)


def _flat(
    tree: Any,  # dictionaries of dictionaries of tensors
    prefix: str = "",
    seen: set[int] | None = None,  # a dictionary that appears twice counts once: no file is larger unfolded
) -> Iterator[tuple[str, Tensor]]:
    seen = set() if seen is None else seen
    if id(tree) in seen:
        return
    seen.add(id(tree))
    for name, value in (tree.fields if isinstance(tree, _Object) else tree).items():
        if len(prefix) + len(str(name)) > _MAX_NAME:
            raise PickleError("a tensor has too long a name")
        value = value.tensor if isinstance(value, _Array) else value
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, (dict, _Object)):
            yield from _flat(value, f"{prefix}{name}.", seen)


def _check_sizes(z: zipfile.ZipFile, size: int) -> None:
    """That nothing unfolds into more than the file holds: neither by compression nor by entries that overlap."""
    entries = [i for i in z.infolist() if i.filename.split("/")[1:2] != ["code"]]  # TorchScript packs it; not read
    if packed := [i.filename for i in entries if i.compress_type != zipfile.ZIP_STORED]:
        raise PickleError(f"{packed[0]} is compressed, which PyTorch never does")
    if sum(i.file_size for i in entries) > size:
        raise PickleError("its entries are larger than the file")


def _check_shape(
    numbers: tuple,  # sizes, and strides and offset where there are some
) -> None:
    """That one may calculate with them: other things, and numbers of a million digits, take as long as they like."""
    if len(numbers) > 20 or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise PickleError("a tensor has an impossible shape")


# TorchScript


class _Object:
    """A module or another object of a TorchScript file: its attributes by name."""

    def __init__(self, *_: Any):
        self.fields: dict = {}

    def set_state(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}


def _torchscript_root(z: zipfile.ZipFile) -> str | None:
    """The folder in the zip, if it is TorchScript; what torch.save writes has no constants.pkl."""
    found = (re.fullmatch(r"([^/]+/)constants\.pkl", name) for name in z.namelist())
    return next((match[1] for match in found if match), None)


def _read_torchscript(z: zipfile.ZipFile, root: str) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(reference: tuple) -> Tensor:  # ('storage', type, name of the entry, device, number of elements)
        kind, dtype, key, _, numel = reference
        if kind != "storage" or not isinstance(dtype, Name) or not re.fullmatch(r"\d+", key):
            raise PickleError("it refers to something that is no storage")
        if key not in storages:
            data = bytearray(z.read(f"{root}data/{key}"))
            storages[key] = torch.frombuffer(data, dtype=dtype.meaning) if data else torch.empty(0, dtype=dtype.meaning)
        if (storages[key].numel(), storages[key].dtype) != (numel, dtype.meaning):
            raise PickleError(f"storage {key} has not the size that the file says")
        return storages[key]

    if z.getinfo(f"{root}data.pkl").file_size > _MAX_PICKLE:
        raise PickleError("its data.pkl is too large")
    return read_pickle(z.read(f"{root}data.pkl"), _torch_name, storage)


def _torch_name(module: str, name: str) -> Any:
    if module == "__torch__" or module.startswith("__torch__."):
        return _Object
    if module == "torch" and name in _STORAGES:
        return _STORAGES[name]
    if module == "torch.jit._pickle":  # build_intlist, restore_type_tag ...: the list, without its type
        return lambda value, *_: value
    return {"torch._utils._rebuild_tensor_v2": _strided, "collections.OrderedDict": lambda: {}}.get(f"{module}.{name}")


def _strided(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """A view of a part of a storage, after looking whether the storage has that part; a copy would cost per tensor."""
    _check_shape((offset, *size, *stride))
    if len(size) != len(stride):
        raise PickleError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if math.prod(size) > storage.numel() or (math.prod(size) and last >= storage.numel()):
        raise PickleError("a tensor is larger than its storage")
    return torch.as_strided(storage, size, stride, offset)


# Numpy


class _Budget:
    """Bytes that may still be copied: arrays that share one blob would take as much as they like."""

    def __init__(self, left: int):
        self.left = left

    def take(self, num: int) -> None:
        self.left -= num
        if self.left < 0:
            raise PickleError("its arrays are larger than the file")


def _read_numpy(data: bytes) -> Any:
    budget = _Budget(2 * len(data))

    def array(*_: Any) -> _Array:
        return _Array(budget)

    known = {"multiarray._reconstruct": array, "ndarray": array, "dtype": _DType}

    def look_up(module: str, name: str) -> Any:
        return known.get(f"{module}.{name}".removeprefix("numpy.").removeprefix("core.").removeprefix("_core."))

    return read_pickle(data, look_up)


class _DType:
    """A numpy type of plain numbers."""

    def __init__(self, code: str, *_: Any):
        if code not in ("f2", "f4", "f8", "i4", "i8"):  # it may be anything, also what takes forever to print
            raise PickleError("it holds numbers of a type that no weights have")
        self.dtype = np.dtype(f"<{code}")

    def set_state(self, state: tuple) -> None:  # (version, byte order, ...)
        if state[1] != "<":
            raise PickleError("its bytes are in another order")


class _Array:
    """A numpy array: empty as it is made, filled by its state."""

    def __init__(self, budget: _Budget):
        self.budget = budget
        self.tensor: Tensor | None = None

    def set_state(self, state: tuple) -> None:  # (version, shape, type, Fortran order, bytes)
        _, shape, dtype, fortran, data = state
        _check_shape(shape)
        if not isinstance(dtype, _DType) or type(data) is not bytes:
            raise PickleError("an array has an impossible type")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise PickleError("an array has not the size that the file says")
        self.budget.take(len(data))
        values = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(values.copy(order="C"))
