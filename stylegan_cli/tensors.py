"""Tensors in files of torch.save and in pickles of numpy, described by the pickle and read from the file on demand."""

from __future__ import annotations

import io
import math
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .pickled import MAX_STEPS, Name, Part, PickleError, is_key, read_pickle

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the old torch.save format
_FEW = 1000  # maximum number of steps of a pickle with little content
_MAX_DESCRIPTION = 1 << 26  # bytes of a zip's data.pkl
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")

Resolver = Callable[[str, str], Any]  # for `read_pickle`


@dataclass(frozen=True)
class Storage:
    """A one-dimensional sequence of numbers in a file: a storage of PyTorch, or the data of an array."""

    dtype: torch.dtype
    part: Part

    @property
    def count(self) -> int:
        return len(self.part) // self.dtype.itemsize

    def load(self, first: int, count: int) -> Tensor:  # [count]
        numbers = torch.empty(count, dtype=self.dtype)
        buffer = numbers.view(torch.uint8).numpy().data
        self.part.file.seek(self.part.start + first * self.dtype.itemsize)
        if count and self.part.file.readinto(buffer) != len(buffer):
            raise PickleError("the file is truncated")
        return numbers


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that has not been read yet, and that is known to be inside its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """A contiguous tensor with its own memory."""
        span = 1 + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True)) if math.prod(self.size) else 0
        numbers = self.storage.load(self.offset, span)
        view = torch.as_strided(numbers, self.size, self.stride)
        return view if view.numel() == span and view.is_contiguous() else view.clone(memory_format=_FLAT)


_FLAT = torch.contiguous_format


def rebuild_tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> LazyTensor:
    """Replaces torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise PickleError("a tensor has an invalid shape")
    check_sizes((offset, *size, *stride))
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else 0
    if len(size) != len(stride) or count > storage.count or (count and last >= storage.count):
        raise PickleError("a tensor is larger than its storage")
    return LazyTensor(storage, offset, size, stride)


def check_sizes(sizes: tuple) -> None:
    """Raise PickleError for anything but a few integers of limited size: calculations with it could take forever."""
    if len(sizes) > 20 or not all(type(n) is int and 0 <= n < 1 << 62 for n in sizes):
        raise PickleError("a tensor has an invalid shape")


# The format of torch.save before zips: five pickles, then the element count and the bytes of each storage


def is_legacy(file: Part) -> bool:
    """Whether the file starts with the magic number of the old torch.save format."""
    try:
        return read_pickle(Part(file.file, file.start, min(len(file), 64)), _resolve_storage_type) == _MAGIC
    except PickleError:
        return False


def read_legacy(
    file: Part,
    resolve: Resolver,  # for all names but those of storages and tensors
    max_steps: int = MAX_STEPS,  # of each pickle
) -> Any:
    """Read the saved object, with LazyTensors in it. Raises PickleError if the file is invalid."""
    if [read_pickle(file, _resolve_storage_type, max_steps=_FEW) for _ in range(2)] != [_MAGIC, _VERSION]:
        raise PickleError("its version of torch.save is not supported")
    system = read_pickle(file, _resolve_storage_type, max_steps=_FEW)
    if isinstance(system, dict) and system.get("little_endian") is False or sys.byteorder != "little":
        raise PickleError("its byte order is not supported")
    storages: dict[str, Storage] = {}

    def find_storage(reference: Any) -> Storage | Name:
        if name := class_of_module(reference):
            return name
        key, dtype, count = _parse_reference(reference)
        storage = storages.setdefault(key, Storage(dtype, Part(file.file, 0, count * dtype.itemsize)))
        if (storage.dtype, storage.count) != (dtype, count):
            raise PickleError(f"the storage {key[:40]} has two sizes")
        return storage

    content = read_pickle(file, _with_tensors(resolve), find_storage, max_steps=max_steps)
    keys = read_pickle(file, _resolve_storage_type, max_steps=max_steps)
    if not isinstance(keys, list) or not all(type(k) is str for k in keys) or sorted(keys) != sorted(storages):
        raise PickleError("its list of storages does not match its tensors")
    for key in keys:
        if int.from_bytes(file.read(8), "little") != storages[key].count:
            raise PickleError(f"the storage {key[:40]} has the wrong size")
        storages[key].part.start = file.skip(len(storages[key].part)).start
    return content


def class_of_module(
    reference: Any,  # a persistent id
) -> Name | None:
    """The class of a module that was saved as a whole; its source code, which follows in the id, is ignored."""
    is_class = type(reference) is tuple and len(reference) == 4 and reference[0] == "module"
    return reference[1] if is_class and isinstance(reference[1], Name) else None


def load_storage(
    part: Any,  # bytes, or the section of a file
) -> Storage:
    """Replaces torch.storage._load_from_bytes: reads a storage in the old torch.save format, embedded in a pickle."""
    part = _in_memory(part) if type(part) is bytes else part
    if type(part) is not Part:
        raise PickleError("a storage is not made of bytes")
    if part.result is None:
        part.result = read_legacy(Part(part.file, part.start, len(part)), _resolve_storage_type, _FEW)
    if not isinstance(part.result, Storage):
        raise PickleError("an embedded file is not a storage")
    return part.result


def _in_memory(data: bytes) -> Part:
    return Part(io.BytesIO(data))


# The format of torch.save since 2020: a zip with data.pkl and one entry per storage


def read_zip(
    file: Part,
    resolve: Resolver,
) -> Any:
    """Read the saved object, with LazyTensors in it. Raises PickleError if the file is invalid."""
    entries = zip_entries(file)
    roots = [name[: -len("data.pkl")] for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in entries:
        raise PickleError("it is a zip, but not written by torch.save")
    root = roots[0]
    order = entries.get(f"{root}byteorder")
    if sys.byteorder != "little" or (order and entry_part(file, order).read(7) != b"little"):
        raise PickleError("its byte order is not supported")
    data = {n.removeprefix(f"{root}data/"): e for n, e in entries.items() if n.startswith(f"{root}data/")}
    parts = {key: entry_part(file, entry) for key, entry in data.items()}

    def find_storage(reference: Any) -> Storage:
        key, dtype, count = _parse_reference(reference)
        if key not in parts or len(parts[key]) != count * dtype.itemsize:
            raise PickleError(f"the storage {key[:40]} is missing or has the wrong size")
        return Storage(dtype, parts[key])

    description = entry_part(file, entries[f"{root}data.pkl"])
    if len(description) > _MAX_DESCRIPTION:
        raise PickleError("its data.pkl is too large")
    return read_pickle(description, _with_tensors(resolve), find_storage)


def zip_entries(file: Part) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip by name. Raises PickleError for properties that torch.save never produces."""
    try:
        with zipfile.ZipFile(file.file) as z:
            infos = z.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error, OSError) as e:
        raise PickleError(f"its zip directory is damaged ({e})") from e
    entries = {entry.filename: entry for entry in infos}
    if len(entries) != len(infos):
        raise PickleError("two of its zip entries have the same name")
    if invalid := [name for name, e in entries.items() if e.compress_type or e.flag_bits & 1]:
        raise PickleError(f"{invalid[0][:80]} is compressed or encrypted, unlike in files of PyTorch")
    return entries


def entry_part(file: Part, entry: zipfile.ZipInfo) -> Part:
    """The section of the file with the data of an entry. Raises PickleError if it is not inside the file."""
    header = Part(file.file, entry.header_offset, 30).read(30) if entry.header_offset >= 0 else b""
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise PickleError(f"{entry.filename[:80]} is not at its position in the zip")
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = entry.header_offset + 30 + name + extra
    if start + entry.file_size > len(file):
        raise PickleError(f"{entry.filename[:80]} is larger than the file")
    return Part(file.file, start, entry.file_size)


def _parse_reference(reference: Any) -> tuple[str, torch.dtype, int]:  # key, dtype, number of elements
    """Parse a persistent id: ('storage', type, key, device, number of elements, ...)."""
    if type(reference) is not tuple or len(reference) < 5 or reference[0] != "storage":
        raise PickleError("it refers to something other than a storage")
    _, dtype, key, _, count = reference[:5]
    if not isinstance(dtype, Name) or not isinstance(dtype.meaning, torch.dtype) or type(key) is not str:
        raise PickleError("it refers to a storage of an unknown type")
    check_sizes((count,))
    return key, dtype.meaning, count


def _with_tensors(resolve: Resolver) -> Resolver:
    def resolve_tensor_name(module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        return resolve(module, name)

    return resolve_tensor_name


def _resolve_storage_type(module: str, name: str) -> Any:
    return STORAGES.get(name) if module == "torch" else None


# Other names in files of weights


def resolve_common_name(module: str, name: str) -> Any:
    """The replacement for a name of a Python container, a wrapper of torch, or numpy; None for other names."""
    if (module, name) in (("collections", "OrderedDict"), ("dnnlib.util", "EasyDict"), ("builtins", "dict")):
        return _dictionary
    if (module, name) == ("builtins", "set"):
        return lambda items=(): list(items) if type(items) is list else []
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
        return lambda tensor, *_: tensor
    if (module, name) == ("_codecs", "encode"):
        return _encode
    return resolve_numpy_name(module, name)


def _dictionary(*arguments: Any) -> dict:
    """Replaces dict, OrderedDict and EasyDict, which old pickles call with a list of pairs."""
    if not arguments or type(arguments[0]) is not list:
        return {}
    if not all(type(pair) in (tuple, list) and len(pair) == 2 and is_key(pair[0]) for pair in arguments[0]):
        raise PickleError("a dictionary in the pickle has keys that are neither strings nor numbers")
    return dict(arguments[0])


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise PickleError("it encodes something other than a Latin-1 string")
    return text.encode("latin-1")


# numpy


def resolve_numpy_name(module: str, name: str) -> Any:
    """The replacement for a name of numpy; None for other names."""
    short = f"{module}.{name}".removeprefix("numpy.").replace("_core.", "core.")
    names = {"core.multiarray._reconstruct": Array, "ndarray": Array, "dtype": DType, "core.multiarray.scalar": scalar}
    return names.get(short) if module.startswith("numpy") else None


class DType:
    """Replaces a numpy dtype of plain numbers."""

    def __init__(self, code: Any, *_: Any):
        if code not in _DTYPES:  # not shown, because printing an arbitrary object could take forever
            raise PickleError("it has numbers of a type that no network has")
        self.dtype = np.dtype(f"<{code}")

    def set_state(self, state: Any) -> None:  # (version, byte order, ...)
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise PickleError("its byte order is not supported")


def scalar(dtype: Any, data: Any) -> int | float | bool:
    if not isinstance(dtype, DType):
        raise PickleError("a number has an invalid type")
    data = data.encode("latin-1") if type(data) is str else data
    if type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise PickleError("a number has the wrong size")
    return np.frombuffer(data, dtype.dtype)[0].item()


class Array:
    """Replaces a numpy array, which is created empty, described by its state, and read on demand."""

    def __init__(self, *_: Any):
        self.size: tuple[int, ...] = (0,)
        self.dtype, self.data, self.fortran = np.dtype("<f4"), b"", False

    def set_state(self, state: Any) -> None:  # (version, shape, type, Fortran order, bytes)
        if type(state) is not tuple or len(state) != 5:
            raise PickleError("an array has an invalid state")
        _, size, dtype, self.fortran, data = state
        if not isinstance(dtype, DType) or type(data) not in (bytes, str, Part) or type(size) is not tuple:
            raise PickleError("an array has an invalid type")
        check_sizes(size)
        if math.prod(size) * dtype.dtype.itemsize != len(data):
            raise PickleError("an array has the wrong size")
        self.size, self.dtype, self.data = size, dtype.dtype, data

    def load(self) -> Tensor:
        data = self.data
        if isinstance(data, Part):
            data = Part(data.file, data.start, len(data)).read(len(data))
        elif type(data) is str:  # from Python 2
            data = data.encode("latin-1")
        values = np.frombuffer(data, self.dtype).reshape(self.size, order="F" if self.fortran else "C")
        return torch.from_numpy(values.copy(order="C"))
