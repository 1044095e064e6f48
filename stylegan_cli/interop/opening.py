"""Any checkpoint as a model: what wrote it is seen from its content, never asked."""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import SganError
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.generator import Generator
from ..models.registry import build_discriminator, build_generator
from ..pickled import Part, PickleError
from ..sampling import counter
from ..snapshot import Snapshot, SnapshotInfo, assemble, load_snapshot
from . import nvidia, rosinality, tensorflow
from .foreign import Foreign, FormatError, Made
from .tensors import is_legacy

_BEGINNING = 4096
# What a tree of the right form with the wrong things in it leads to
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError, zipfile.BadZipFile)
_SAMPLES = 10_000  # whose mean w has, where the file does not hold it


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint."""

    name: str
    read: Callable[[Part], Foreign]


PICKLE = (
    Format("NVIDIA's PyTorch pickle", nvidia.read_nvidia),
    Format("TensorFlow pickle", tensorflow.read_tensorflow),
)
TORCH = (
    Format("rosinality's or pSp's .pt", rosinality.read_rosinality),
)  # what torch.save wrote, a zip or its old form


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
        model = assemble(_info(foreign, path), load_tensors(foreign, path, path.stat().st_size), path, device)
    if foreign.measure_w_avg:
        _measure_w_avg(model.G)
    return model


def foreign_info(
    path: Path,  # of no snapshot
) -> tuple[SnapshotInfo, tuple[str, ...]]:  # and what is lost of the file, or was guessed
    """What a checkpoint of another program says about its model; its tensors are not read."""
    with open(path, "rb") as f:
        foreign = read_foreign(Part(f), path)
    return _info(foreign, path), foreign.notes


def _info(foreign: Foreign, path: Path) -> SnapshotInfo:
    trained = f", trained on {foreign.data}" if foreign.data else ""
    p = "" if foreign.aug_p is None else f", augmented with p = {foreign.aug_p:.3g} at its end"
    origin = f"{foreign.format} {path.name}{trained}{p}"
    return SnapshotInfo(foreign.generator, foreign.discriminator, kimg=foreign.kimg, origin=origin)


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
    for format in TORCH if _is_of_torch_save(file) else PICKLE:
        try:
            return format.read(Part(file.file))
        except FormatError as e:
            raise SganError(f"{path} cannot be used: {e}.") from e
        except (PickleError, SganError) as e:
            tried.append(f"{format.name}: {str(e).rstrip('.')}")
        except _ODD as e:
            tried.append(f"{format.name}: it makes no sense ({type(e).__name__})")
    raise SganError(f"{path} is no checkpoint that is known here ({'; '.join(tried)}).")


def load_tensors(
    foreign: Foreign,
    path: Path,  # for the sentence
    size: int,  # bytes of the file: no tensor's number takes less than one
) -> dict[str, torch.Tensor]:
    """The tensors, once it is known that they are those of the configuration: nothing is read in vain."""
    found = {f"G.{k}": v for k, v in foreign.G.items()} | {f"D.{k}": v for k, v in foreign.D.items()}
    wanted = _shapes(foreign.generator, foreign.discriminator)
    wrong = sorted(n for n in wanted.keys() | found.keys() if n not in found or found[n].size != wanted.get(n))
    if wrong:
        raise SganError(f"{path} does not fit its own configuration: {', '.join(wrong[:8])}.")
    if sum(math.prod(t.size) for t in found.values() if not isinstance(t, Made)) > size:
        raise SganError(f"{path} cannot be read: its tensors are more than it holds.")
    try:
        return {name: tensor.load() for name, tensor in found.items()}
    except (PickleError, *_ODD) as e:
        raise SganError(f"{path} cannot be read: {e if isinstance(e, PickleError) else type(e).__name__}.") from e


def _is_of_torch_save(file: Part) -> bool:
    return Part(file.file).read(4) == b"PK\3\4" or is_legacy(Part(file.file))


@torch.inference_mode()
def _measure_w_avg(G: Generator) -> None:
    """Set the mean of w, which truncation pulls towards, for an unconditional model that came without."""
    z = counter.normal(0, "w_avg", torch.arange(_SAMPLES), (G.config.z_dim,)).to(G.mapping.w_avg.device)
    G.mapping.w_avg.copy_(torch.cat([G.mapping(some)[:, 0] for some in z.split(500)]).mean(0))


@functools.lru_cache(4)
def _shapes(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig | None,
) -> dict[str, tuple[int, ...]]:
    """The tensors of both networks, by their names in a snapshot."""
    with torch.device("meta"):
        networks: dict[str, torch.nn.Module] = {"G": build_generator(generator)}
        if discriminator is not None:
            networks["D"] = build_discriminator(discriminator)
    pairs = [(key, pair) for key, network in networks.items() for pair in network.state_dict().items()]
    return {f"{key}.{name}": tuple(tensor.shape) for key, (name, tensor) in pairs}


def _refuse_what_is_no_model(file: Part, path: Path) -> None:
    beginning = Part(file.file).read(_BEGINNING)
    if beginning.startswith(b"version https://git-lfs"):
        raise SganError(f"{path} is a pointer of Git LFS, not the file itself.", hint="git lfs pull")
    if b"<html" in beginning.lower() or beginning.lstrip()[:9].lower() == b"<!doctype":
        raise SganError(f"{path} is a web page, not a checkpoint.", hint="Download the file itself again.")
    if not beginning:
        raise SganError(f"{path} is empty.")
