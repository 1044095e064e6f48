"""Lists the classes and functions that a pickle names, even if it cannot be read. None of them is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pickled import MAX_STEPS, Part, PickleError, read_pickle
from ..tensors import STORAGES, class_of_module, entry_part, is_legacy, load_storage, rebuild_tensor, zip_entries
from .checkpoint import FormatError
from .modules import resolve_name

_STORAGE_STEPS = 1000  # maximum number of steps of a pickle in a storage


@dataclass
class PickleNames:
    """The names in a file."""

    known: dict[str, bool] = field(default_factory=dict)  # name -> whether it is inert: a reader replaces it with data
    complete: bool = True  # whether the pickle was read to the end; objects of unknown classes may hide more


def find_names(
    path: Path,
) -> PickleNames | None:  # None: the file contains no pickle
    """List every global that a file names, including those in pickles inside its storages."""
    names = PickleNames()
    with open(path, "rb") as f:
        head = f.read(4)
        if head == b"PK\3\4":
            try:
                entries = zip_entries(Part(f))
                descriptions = [
                    entry_part(Part(f), e) for n, e in entries.items() if n.rpartition("/")[2] == "data.pkl"
                ]
            except PickleError:
                return PickleNames(complete=False)
            for part in descriptions:
                _scan(part, names)
            return names if descriptions else None
        if head[:1] != b"\x80":
            return None
        file = Part(f)
        is_torch = is_legacy(Part(f))
        _scan(file, names)
        for _ in range(4):  # the old torch.save wrote five pickles in a row
            if names.complete and file.position < len(file):
                _scan(file, names, required=is_torch)
    return names


def _scan(file: Part, names: PickleNames, required: bool = True, max_steps: int = MAX_STEPS) -> None:
    """Scan one pickle, and those nested directly in it."""

    def resolve(module: str, name: str) -> Any:
        meaning = _meaning(module, name)
        names.known[f"{module}.{name}"[:200]] = meaning is not None
        if (module, name) == ("torch.storage", "_load_from_bytes") and max_steps == MAX_STEPS:
            return lambda part: _scan_storage(part, names)
        return _Unknown if meaning is None or meaning in (rebuild_tensor, load_storage) else meaning

    try:
        read_pickle(file, resolve, _find_object, lazy_bytes=True, max_steps=max_steps)
    except PickleError:
        names.complete = names.complete and not required


def _find_object(reference: Any) -> Any:
    return class_of_module(reference) or _Unknown()


def _scan_storage(part: Any, names: PickleNames) -> Any:
    """Scan the five pickles of a storage, the fourth of which names its type."""
    if isinstance(part, Part) and part.result is None:
        part.result = stream = Part(part.file, part.start, len(part))
        for _ in range(5):
            _scan(stream, names, max_steps=_STORAGE_STEPS)
    return _Unknown()


def _meaning(module: str, name: str) -> Any:
    if module == "torch" and name in STORAGES:
        return STORAGES[name]
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return rebuild_tensor
    try:
        return resolve_name(module, name)
    except FormatError:
        return None


class _Unknown:
    """A placeholder for any class or object."""

    def __init__(self, *_: Any):
        pass

    def set_state(self, state: Any) -> None:
        pass
