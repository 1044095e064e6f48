"""Read files of weights as named tensors, without executing any code in them.

- `torch.save`, old and new formats: with PyTorch's own restricted reader.
- TorchScript: a zip whose data.pkl describes a tree of modules, with one entry per storage; its code is not read.
- Pickled dictionaries of NumPy arrays, as in the JAX ports.
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
from ..tensors import STORAGES

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of torch.save's format before it wrote zips
_MAX_PICKLE = 1 << 26  # bytes of a TorchScript file's data.pkl
_MAX_NAME = 1000  # characters of a tensor's name, which grows with its depth


def read_tensors(
    path: Path,
) -> dict[str, Tensor]:  # dotted name -> tensor on the CPU
    """Read all tensors of a file. Raises SganError if it does not exist or has none of these formats."""
    if not path.is_file():
        raise SganError(f"{path} does not exist.")
    try:
        return dict(_flatten(_read(path)))
    except Exception as e:  # torch.load and zipfile raise a dozen kinds
        reason = str(e).strip().split("\n")[0].rstrip(".")
        raise SganError(f"{path} cannot be read as a file of weights ({reason or type(e).__name__}).") from e


def _read(path: Path) -> Any:
    """Read a tree of tensors in the format that the file's first bytes indicate."""
    with open(path, "rb") as f:
        magic = f.read(len(_LEGACY))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as z:
            _check_sizes(z, path.stat().st_size)
            if root := _torchscript_root(z):
                return _read_torchscript(z, root)
    elif not magic.startswith(b"\x80"):
        raise PickleError("it is neither a zip nor a pickle")
    elif magic != _LEGACY:
        return _read_numpy(path.read_bytes())
    return torch.load(path, map_location="cpu", weights_only=True)


def _flatten(
    tree: Any,  # dictionaries of dictionaries of tensors
    prefix: str = "",
    seen: set[int] | None = None,  # ids of visited dictionaries: a shared one counts once, so the result stays small
) -> Iterator[tuple[str, Tensor]]:
    seen = set() if seen is None else seen
    if id(tree) in seen:
        return
    seen.add(id(tree))
    for name, value in (tree.fields if isinstance(tree, _Object) else tree).items():
        if len(prefix) + len(str(name)) > _MAX_NAME:
            raise PickleError("the name of a tensor is too long")
        value = value.tensor if isinstance(value, _Array) else value
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, (dict, _Object)):
            yield from _flatten(value, f"{prefix}{name}.", seen)


def _check_sizes(z: zipfile.ZipFile, size: int) -> None:
    """Raise PickleError if the entries expand to more than the file, by compression or by overlapping."""
    entries = [i for i in z.infolist() if i.filename.split("/")[1:2] != ["code"]]  # compressed, but not read
    if packed := [i.filename for i in entries if i.compress_type != zipfile.ZIP_STORED]:
        raise PickleError(f"{packed[0]} is compressed, which PyTorch never does")
    if sum(i.file_size for i in entries) > size:
        raise PickleError("its entries are larger than the file")


def _check_shape(
    numbers: tuple,  # sizes, and possibly strides and an offset
) -> None:
    """Raise PickleError unless these are small integers: arithmetic with huge ones could take forever."""
    if len(numbers) > 20 or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise PickleError("a tensor has an invalid shape")


# TorchScript


class _Object:
    """A module or another object of a TorchScript file: its attributes by name."""

    def __init__(self, *_: Any):
        self.fields: dict = {}

    def set_state(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}


def _torchscript_root(z: zipfile.ZipFile) -> str | None:
    """Return the root folder in a TorchScript zip; None for torch.save, which writes no constants.pkl."""
    matches = (re.fullmatch(r"([^/]+/)constants\.pkl", name) for name in z.namelist())
    return next((match[1] for match in matches if match), None)


def _read_torchscript(z: zipfile.ZipFile, root: str) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(reference: tuple) -> Tensor:  # ('storage', type, name of the entry, device, number of elements)
        kind, dtype, key, _, numel = reference
        if kind != "storage" or not isinstance(dtype, Name) or not re.fullmatch(r"\d+", key):
            raise PickleError("it refers to something that is not a storage")
        if key not in storages:
            data = bytearray(z.read(f"{root}data/{key}"))
            storages[key] = torch.frombuffer(data, dtype=dtype.meaning) if data else torch.empty(0, dtype=dtype.meaning)
        if (storages[key].numel(), storages[key].dtype) != (numel, dtype.meaning):
            raise PickleError(f"storage {key} does not have the declared size")
        return storages[key]

    if z.getinfo(f"{root}data.pkl").file_size > _MAX_PICKLE:
        raise PickleError("its data.pkl is too large")
    return read_pickle(z.read(f"{root}data.pkl"), _torch_name, storage)


def _torch_name(module: str, name: str) -> Any:
    if module == "__torch__" or module.startswith("__torch__."):
        return _Object
    if module == "torch" and name in STORAGES:
        return STORAGES[name]
    if module == "torch.jit._pickle":  # build_intlist, restore_type_tag ...: keep the list, drop its type
        return lambda value, *_: value
    return {"torch._utils._rebuild_tensor_v2": _strided, "collections.OrderedDict": lambda: {}}.get(f"{module}.{name}")


def _strided(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """Return a view of a storage, after checking its bounds. A copy per tensor could take any amount of memory."""
    _check_shape((offset, *size, *stride))
    if len(size) != len(stride):
        raise PickleError("a tensor has an invalid shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if math.prod(size) > storage.numel() or (math.prod(size) and last >= storage.numel()):
        raise PickleError("a tensor is larger than its storage")
    return torch.as_strided(storage, size, stride, offset)


# NumPy


class _Budget:
    """Limit of the bytes to copy: arrays that share their bytes could take any amount of memory."""

    def __init__(self, remaining: int):
        self.remaining = remaining

    def take(self, num: int) -> None:
        self.remaining -= num
        if self.remaining < 0:
            raise PickleError("its arrays are larger than the file")


def _read_numpy(data: bytes) -> Any:
    budget = _Budget(2 * len(data))

    def array(*_: Any) -> _Array:
        return _Array(budget)

    classes = {"multiarray._reconstruct": array, "ndarray": array, "dtype": _DType}

    def find_class(module: str, name: str) -> Any:
        return classes.get(f"{module}.{name}".removeprefix("numpy.").removeprefix("core.").removeprefix("_core."))

    return read_pickle(data, find_class)


class _DType:
    """A NumPy dtype of plain numbers."""

    def __init__(self, code: str, *_: Any):
        if code not in ("f2", "f4", "f8", "i4", "i8"):  # not printed, because printing it could take forever
            raise PickleError("it has an array of a type that is not used for weights")
        self.dtype = np.dtype(f"<{code}")

    def set_state(self, state: tuple) -> None:  # (version, byte order, ...)
        if state[1] != "<":
            raise PickleError("its arrays are not little-endian")


class _Array:
    """A NumPy array: created empty, filled by its state."""

    def __init__(self, budget: _Budget):
        self.budget = budget
        self.tensor: Tensor | None = None

    def set_state(self, state: tuple) -> None:  # (version, shape, type, Fortran order, bytes)
        _, shape, dtype, fortran, data = state
        _check_shape(shape)
        if not isinstance(dtype, _DType) or type(data) is not bytes:
            raise PickleError("an array has an invalid type")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise PickleError("an array does not have the declared size")
        self.budget.take(len(data))
        values = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(values.copy(order="C"))
