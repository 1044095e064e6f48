"""Which classes and functions a pickle names, whether or not it can be read: nothing of it is looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pickled import MAX_STEPS, Part, PickleError, read_pickle
from . import nvidia, rosinality, tensorflow
from .foreign import FormatError
from .tensors import STORAGES, entry_part, numpy_name, rebuild_tensor, storage_from_bytes, zip_entries

_FEW = 1000  # steps of a pickle within a storage
_READERS = (nvidia.known, rosinality.known, tensorflow.known, numpy_name)


@dataclass
class Names:
    """What was found."""

    known: dict[str, bool] = field(default_factory=dict)  # name -> whether it is inert: we know what it stands for
    complete: bool = True  # the pickle was read to its end; what it builds of unknown classes may hide more


def names_in(
    path: Path,
) -> Names | None:  # None: there is no pickle in it
    """Every global that a file names, down to the pickles within its storages."""
    found = Names()
    with open(path, "rb") as f:
        beginning = f.read(4)
        if beginning == b"PK\3\4":
            try:
                entries = zip_entries(Part(f))
                described = [entry_part(Part(f), e) for n, e in entries.items() if n.rpartition("/")[2] == "data.pkl"]
            except PickleError:
                return Names(complete=False)
            for part in described:
                _scan(part, found)
            return found if described else None
        if beginning[:1] != b"\x80":
            return None
        file = Part(f)
        _scan(file, found)
        for _ in range(4):  # torch.save wrote five, one after the other
            if found.complete and file.place < len(file):
                _scan(file, found, must=False)
    return found


def _scan(file: Part, found: Names, must: bool = True, steps: int = MAX_STEPS) -> None:
    """One pickle; those within it are looked into once each, and not into those within them."""

    def known(module: str, name: str) -> Any:
        meaning = _meaning(module, name)
        found.known[f"{module}.{name}"[:200]] = meaning is not None
        if (module, name) == ("torch.storage", "_load_from_bytes") and steps == MAX_STEPS:
            return lambda part: _nested(part, found)
        return _Unknown if meaning is None or meaning in (rebuild_tensor, storage_from_bytes) else meaning

    try:
        read_pickle(file, known, _Unknown, parts=True, steps=steps)
    except PickleError:
        found.complete = found.complete and not must


def _nested(part: Any, found: Names) -> Any:
    """The five pickles of a storage: the fourth names its type."""
    if isinstance(part, Part) and part.made is None:
        part.made = stream = Part(part.file, part.start, len(part))
        for _ in range(5):
            _scan(stream, found, steps=_FEW)
    return _Unknown()


def _meaning(module: str, name: str) -> Any:
    if module == "torch" and name in STORAGES:
        return STORAGES[name]
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return rebuild_tensor
    for reader in _READERS:
        try:
            if (meaning := reader(module, name)) is not None:
                return meaning
        except FormatError:
            continue
    return None


class _Unknown:
    """What stands for anything."""

    def __init__(self, *_: Any):
        pass

    def set_state(self, state: Any) -> None:
        pass
