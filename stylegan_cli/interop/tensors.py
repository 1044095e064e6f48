"""Tensors in files of torch.save and in pickles of numpy: described by the pickle, read from the file when wanted."""

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

from ..pickled import MAX_STEPS, Name, Part, PickleError, is_key, read_pickle

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
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # how torch.save began before it wrote zips
_FEW = 1000  # steps of a pickle that holds next to nothing
_MAX_DESCRIPTION = 1 << 26  # bytes of a zip's data.pkl
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")

Known = Callable[[str, str], Any]


@dataclass(frozen=True)
class Numbers:
    """Numbers side by side in a file, [count] of a storage, or an array's."""

    dtype: torch.dtype
    part: Part

    @property
    def count(self) -> int:
        return len(self.part) // self.dtype.itemsize

    def load(self, first: int, count: int) -> Tensor:  # [count] from that one on
        numbers = torch.empty(count, dtype=self.dtype)
        into = numbers.view(torch.uint8).numpy().data
        self.part.file.seek(self.part.start + first * self.dtype.itemsize)
        if count and self.part.file.readinto(into) != len(into):
            raise PickleError("the file is cut short")
        return numbers


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that has not been read yet; it is known to fit into what holds it."""

    numbers: Numbers
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """In memory of its own, contiguous."""
        span = 1 + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True)) if math.prod(self.size) else 0
        numbers = self.numbers.load(self.offset, span)
        view = torch.as_strided(numbers, self.size, self.stride)
        return view if view.numel() == span and view.is_contiguous() else view.clone(memory_format=_FLAT)


_FLAT = torch.contiguous_format


def rebuild_tensor(numbers: Numbers, offset: int, size: tuple, stride: tuple, *_: Any) -> LazyTensor:
    """torch._utils._rebuild_tensor_v2."""
    if not isinstance(numbers, Numbers) or type(size) is not tuple or type(stride) is not tuple:
        raise PickleError("a tensor has an impossible shape")
    check_numbers((offset, *size, *stride))
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else 0
    if len(size) != len(stride) or count > numbers.count or (count and last >= numbers.count):
        raise PickleError("a tensor is larger than its storage")
    return LazyTensor(numbers, offset, size, stride)


def check_numbers(numbers: tuple) -> None:
    """That one may calculate with them: other things, and numbers of a million digits, take as long as they like."""
    if len(numbers) > 20 or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise PickleError("a tensor has an impossible shape")


# What torch.save wrote before it wrote zips: five pickles, then for each storage its count and its bytes


def is_legacy(file: Part) -> bool:
    """Whether it begins with the number that torch.save began with."""
    try:
        return read_pickle(Part(file.file, file.start, min(len(file), 64)), _nothing) == _MAGIC
    except PickleError:
        return False


def read_legacy(
    file: Part,
    known: Known,  # what the object's names mean; storages' are known already
    steps: int = MAX_STEPS,  # of the pickles that describe it
) -> Any:
    """The object, its tensors as LazyTensor. Raises PickleError."""
    if [read_pickle(file, _nothing, steps=_FEW) for _ in range(2)] != [_MAGIC, _VERSION]:
        raise PickleError("it is of another version of torch.save")
    system = read_pickle(file, _nothing, steps=_FEW)
    if isinstance(system, dict) and system.get("little_endian") is False or sys.byteorder != "little":
        raise PickleError("its bytes are in another order")
    places: dict[str, Numbers] = {}

    def storage(reference: Any) -> Numbers:
        key, dtype, count = _reference(reference)
        place = places.setdefault(key, Numbers(dtype, Part(file.file, 0, count * dtype.itemsize)))
        if (place.dtype, place.count) != (dtype, count):
            raise PickleError(f"storage {key[:40]} has two sizes")
        return place

    described = read_pickle(file, _with_storages(known), storage, steps=steps)
    keys = read_pickle(file, _nothing, steps=steps)
    if not isinstance(keys, list) or not all(type(k) is str for k in keys) or sorted(keys) != sorted(places):
        raise PickleError("the list of its storages is another than those that it needs")
    for key in keys:
        if int.from_bytes(file.read(8), "little") != places[key].count:
            raise PickleError(f"storage {key[:40]} has not the size that the file says")
        places[key].part.start = file.skip(len(places[key].part)).start
    return described


def storage_from_bytes(
    part: Any,  # bytes, or where they are
) -> Numbers:
    """torch.storage._load_from_bytes: a whole file of torch.save within a pickle, of one storage."""
    part = _in_memory(part) if type(part) is bytes else part
    if type(part) is not Part:
        raise PickleError("it takes something else for a storage")
    if part.made is None:
        part.made = read_legacy(Part(part.file, part.start, len(part)), _nothing, _FEW)
    if not isinstance(part.made, Numbers):
        raise PickleError("it holds something else where a storage should be")
    return part.made


def _in_memory(data: bytes) -> Part:
    return Part(io.BytesIO(data))


# torch.save since 2020: a zip with data.pkl and one entry for each storage


def read_zip(
    file: Part,
    known: Known,
) -> Any:
    """The object, its tensors as LazyTensor. Raises PickleError."""
    entries = zip_entries(file)
    roots = [name[: -len("data.pkl")] for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in entries:
        raise PickleError("it is a zip, but not one of torch.save")
    root = roots[0]
    order = entries.get(f"{root}byteorder")
    if sys.byteorder != "little" or (order and entry_part(file, order).read(7) != b"little"):
        raise PickleError("its bytes are in another order")
    data = {n.removeprefix(f"{root}data/"): e for n, e in entries.items() if n.startswith(f"{root}data/")}
    places = {key: entry_part(file, entry) for key, entry in data.items()}

    def storage(reference: Any) -> Numbers:
        key, dtype, count = _reference(reference)
        if key not in places or len(places[key]) != count * dtype.itemsize:
            raise PickleError(f"storage {key[:40]} is missing, or not of the size that the file says")
        return Numbers(dtype, places[key])

    description = entry_part(file, entries[f"{root}data.pkl"])
    if len(description) > _MAX_DESCRIPTION:
        raise PickleError("its data.pkl is too large")
    return read_pickle(description, _with_storages(known), storage)


def zip_entries(file: Part) -> dict[str, zipfile.ZipInfo]:
    """By their names. Raises PickleError for what torch.save never writes."""
    try:
        with zipfile.ZipFile(file.file) as z:
            found = z.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error, OSError) as e:
        raise PickleError(f"its table of contents is damaged ({e})") from e
    entries = {entry.filename: entry for entry in found}
    if len(entries) != len(found):
        raise PickleError("two of its entries have one name")
    if packed := [name for name, e in entries.items() if e.compress_type or e.flag_bits & 1]:
        raise PickleError(f"{packed[0][:80]} is compressed or encrypted, which PyTorch never does")
    return entries


def entry_part(file: Part, entry: zipfile.ZipInfo) -> Part:
    """Where an entry's bytes are: after its own header, whose length stands in it. None reaches beyond the file."""
    header = Part(file.file, entry.header_offset, 30).read(30) if entry.header_offset >= 0 else b""
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise PickleError(f"{entry.filename[:80]} is not where the zip says")
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = entry.header_offset + 30 + name + extra
    if start + entry.file_size > len(file):
        raise PickleError(f"{entry.filename[:80]} is larger than the file")
    return Part(file.file, start, entry.file_size)


def _reference(reference: Any) -> tuple[str, torch.dtype, int]:
    """A persistent id: ('storage', type, key, device, number of elements, ...)."""
    if type(reference) is not tuple or len(reference) < 5 or reference[0] != "storage":
        raise PickleError("it refers to something that is no storage")
    _, dtype, key, _, count = reference[:5]
    if not isinstance(dtype, Name) or not isinstance(dtype.meaning, torch.dtype) or type(key) is not str:
        raise PickleError("it refers to a storage of an unknown type")
    check_numbers((count,))
    return key, dtype.meaning, count


def _with_storages(known: Known) -> Known:
    def look_up(module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        return known(module, name)

    return look_up


def _nothing(module: str, name: str) -> Any:
    return STORAGES.get(name) if module == "torch" else None


# What files of weights name besides


def plain_name(module: str, name: str) -> Any:
    """What names of Python's containers, of torch's wrappers and of numpy mean; None for others."""
    if (module, name) in (("collections", "OrderedDict"), ("dnnlib.util", "EasyDict"), ("builtins", "dict")):
        return _dictionary
    if (module, name) == ("builtins", "set"):
        return lambda items=(): list(items) if type(items) is list else []
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
        return lambda tensor, *_: tensor
    if (module, name) == ("_codecs", "encode"):
        return _encoded
    return numpy_name(module, name)


def _dictionary(*arguments: Any) -> dict:
    """OrderedDict() and its like, and of old ones the pairs that they were made of."""
    if not arguments or type(arguments[0]) is not list:
        return {}
    if not all(type(pair) in (tuple, list) and len(pair) == 2 and is_key(pair[0]) for pair in arguments[0]):
        raise PickleError("a dictionary of the pickle has keys that are neither texts nor numbers")
    return dict(arguments[0])


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise PickleError("it encodes what is no text")
    return text.encode("latin-1")


# numpy


def numpy_name(module: str, name: str) -> Any:
    """What numpy's names mean; None for others'."""
    short = f"{module}.{name}".removeprefix("numpy.").replace("_core.", "core.")
    known = {"core.multiarray._reconstruct": Array, "ndarray": Array, "dtype": DType, "core.multiarray.scalar": scalar}
    return known.get(short) if module.startswith("numpy") else None


class DType:
    """A numpy type of plain numbers."""

    def __init__(self, code: Any, *_: Any):
        if code not in _DTYPES:  # it may be anything, also what takes forever to print
            raise PickleError("it holds numbers of a type that no network has")
        self.dtype = np.dtype(f"<{code}")

    def set_state(self, state: Any) -> None:  # (version, byte order, ...)
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise PickleError("its bytes are in another order")


def scalar(dtype: Any, data: Any) -> int | float | bool:
    if not isinstance(dtype, DType):
        raise PickleError("a number has an impossible type")
    data = data.encode("latin-1") if type(data) is str else data
    if type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise PickleError("a number has not the size that the file says")
    return np.frombuffer(data, dtype.dtype)[0].item()


class Array:
    """A numpy array: empty as it is made, described by its state, read when it is wanted."""

    def __init__(self, *_: Any):
        self.size: tuple[int, ...] = (0,)
        self.dtype, self.data, self.fortran = np.dtype("<f4"), b"", False

    def set_state(self, state: Any) -> None:  # (version, shape, type, Fortran order, bytes)
        if type(state) is not tuple or len(state) != 5:
            raise PickleError("an array has an impossible state")
        _, size, dtype, self.fortran, data = state
        if not isinstance(dtype, DType) or type(data) not in (bytes, str, Part) or type(size) is not tuple:
            raise PickleError("an array has an impossible type")
        check_numbers(size)
        if math.prod(size) * dtype.dtype.itemsize != len(data):
            raise PickleError("an array has not the size that the file says")
        self.size, self.dtype, self.data = size, dtype.dtype, data

    def load(self) -> Tensor:
        data = self.data
        if isinstance(data, Part):
            data = Part(data.file, data.start, len(data)).read(len(data))
        elif type(data) is str:  # what Python 2 wrote
            data = data.encode("latin-1")
        values = np.frombuffer(data, self.dtype).reshape(self.size, order="F" if self.fortran else "C")
        return torch.from_numpy(values.copy(order="C"))
