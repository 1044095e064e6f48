"""Any checkpoint as a model: what wrote it is seen from its content, never asked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


from ..errors import SganError
from ..models import build_discriminator, build_generator
from ..pickled import Part, PickleError
from ..snapshot import Snapshot, SnapshotInfo, assemble, load_snapshot
from . import nvidia
from .foreign import Foreign, FormatError

_BEGINNING = 4096


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint."""

    name: str
    read: Callable[[Part], Foreign]


PICKLE = (Format("NVIDIA's PyTorch pickle", nvidia.read_nvidia),)


def open_model(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Snapshot:
    """A snapshot, or a checkpoint of another program. Raises SganError with one sentence if it is neither, or does not
    fit its own configuration."""
    path = Path(path)
    if is_snapshot(path):
        return load_snapshot(path, device)
    with open(path, "rb") as f:
        foreign = read_foreign(Part(f), path)
        info = SnapshotInfo(
            foreign.generator,
            foreign.discriminator,
            kimg=foreign.kimg,
            origin=f"{foreign.format} {path.name}" + (f", trained on {foreign.data}" if foreign.data else ""),
        )
        return assemble(info, _loaded(foreign, path), path, device)


def is_snapshot(path: Path) -> bool:
    """Whether `load_snapshot` is the one to read it, or to say what is wrong: it is not there, or is safetensors."""
    if not path.is_file():
        return True
    with open(path, "rb") as f:
        beginning = f.read(9)
    return len(beginning) == 9 and beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < 1 << 27


def read_foreign(
    file: Part,
    path: Path,  # for the sentence
) -> Foreign:
    """Raises SganError that says which formats were tried, and why it is none of them."""
    _refuse_what_is_no_model(file, path)
    tried = []
    for format in PICKLE:
        try:
            return format.read(Part(file.file))
        except FormatError as e:
            raise SganError(f"{path} cannot be used: {e}.") from e
        except (PickleError, zipfile.BadZipFile, SganError) as e:
            tried.append(f"{format.name}: {str(e).rstrip('.')}")
    raise SganError(f"{path} is no checkpoint that is known here ({'; '.join(tried)}).")


def _loaded(foreign: Foreign, path: Path) -> dict[str, torch.Tensor]:
    """The tensors, once it is known that they are those of the configuration: nothing is read in vain."""
    found = {f"G.{k}": v for k, v in foreign.G.items()} | {f"D.{k}": v for k, v in foreign.D.items()}
    wanted = _shapes(lambda: build_generator(foreign.generator), "G.")
    if foreign.discriminator is not None:
        wanted |= _shapes(lambda: build_discriminator(foreign.discriminator), "D.")
    wrong = sorted(n for n in wanted.keys() | found.keys() if n not in found or found[n].size != wanted.get(n))
    if wrong:
        raise SganError(f"{path} does not fit its own configuration: {', '.join(wrong[:8])}.")
    try:
        return {name: tensor.load() for name, tensor in found.items()}
    except PickleError as e:
        raise SganError(f"{path} cannot be read: {e}.") from e


def _shapes(build: Callable[[], nn.Module], prefix: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {prefix + name: tuple(t.shape) for name, t in build().state_dict().items()}


def _refuse_what_is_no_model(file: Part, path: Path) -> None:
    beginning = Part(file.file).read(_BEGINNING)
    if beginning.startswith(b"version https://git-lfs"):
        raise SganError(f"{path} is a pointer of Git LFS, not the file itself.", hint="git lfs pull")
    if b"<html" in beginning.lower() or beginning.lstrip()[:9].lower() == b"<!doctype":
        raise SganError(f"{path} is a web page, not a checkpoint.", hint="Download the file itself again.")
    if not beginning:
        raise SganError(f"{path} is empty.")
