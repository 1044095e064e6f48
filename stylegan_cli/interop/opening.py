"""Opening any model file. The format is detected from the content."""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Callable, Mapping
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
from ..tensors import is_legacy
from . import mmgeneration, networks, tensorflow
from .checkpoint import Checkpoint, ComputedTensor, FormatError, Loadable, OtherContentError
from .identify import CONVERT_HELP, DOWNLOAD_AGAIN, identify_content, identify_head
from .safetensors_file import is_foreign, is_safetensors

# Raised by readers for a tree with the right structure but wrong types or values
MALFORMED = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError),
    zipfile.BadZipFile,
)
_W_AVG_SAMPLES = 10_000  # latents for the mean of w, if the file does not have it


@dataclass(frozen=True)
class Format:
    """A checkpoint format."""

    name: str
    read: Callable[[Part], Checkpoint]


PICKLE = (
    Format("PyTorch pickle", networks.read_networks),
    Format("TensorFlow pickle", tensorflow.read_tensorflow),
)
TORCH = (  # a zip, or its old format
    Format("file of torch.save", networks.read_networks),
    Format("MMGeneration's .pth", mmgeneration.read_mmgeneration),
)


def open_model(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Snapshot:
    """Open a snapshot or a checkpoint of another program. Raises SganError if the file is neither, or does not match
    its own configuration."""
    path = Path(path)
    if is_snapshot(path):
        return load_snapshot(path, device)
    with open(path, "rb") as f:
        checkpoint = read_checkpoint(Part(f), path)
        model = assemble(_info(checkpoint, path), load_tensors(checkpoint, path, path.stat().st_size), path, device)
    if checkpoint.measure_w_avg:
        _measure_w_avg(model.G)
    return model


def checkpoint_info(
    path: Path,  # not a snapshot
) -> tuple[SnapshotInfo, tuple[str, ...]]:  # and notes on what is omitted or guessed
    """Read the description of the model in another program's checkpoint, without its tensors."""
    with open(path, "rb") as f:
        checkpoint = read_checkpoint(Part(f), path)
    return _info(checkpoint, path), checkpoint.notes


def _info(checkpoint: Checkpoint, path: Path) -> SnapshotInfo:
    trained = f", trained on {checkpoint.data}" if checkpoint.data else ""
    p = "" if checkpoint.aug_p is None else f", augmented with p = {checkpoint.aug_p:.3g} at its end"
    origin = f"{checkpoint.format} {path.name}{trained}{p}"
    return SnapshotInfo(checkpoint.generator, checkpoint.discriminator, kimg=checkpoint.kimg, origin=origin)


def is_snapshot(path: Path) -> bool:
    """Whether the file is safetensors of this package, or missing: `load_snapshot` reads it, or says why it cannot."""
    if not path.is_file():
        return True
    with open(path, "rb") as f:
        head = f.read(9)
    return is_safetensors(head) and not is_foreign(path)


def read_checkpoint(
    file: Part,
    path: Path,  # for the message
) -> Checkpoint:
    """Read a checkpoint of any format. Raises SganError with the reason why it is none of them."""
    if finding := identify_head(Part(file.file)):
        raise SganError(f"{path} is {finding[0]}.", hint=finding[1])
    failure = None  # of the reader that knows such files
    for format in TORCH if _is_from_torch_save(file) else PICKLE:
        try:
            return format.read(Part(file.file))
        except FormatError as e:
            raise SganError(f"{path} cannot be used: {e}.", hint=CONVERT_HELP) from e
        except OtherContentError:
            continue
        except (PickleError, SganError) as e:
            failure = failure or str(e).rstrip(".")
        except MALFORMED as e:
            failure = failure or f"it is malformed ({type(e).__name__})"
    if failure is not None:
        cause = DOWNLOAD_AGAIN if "truncated" in failure else None
        raise SganError(f"{path} cannot be read: {failure}.", hint=cause)
    what, hint = identify_content(Part(file.file))
    raise SganError(f"{path} is {what}.", hint=hint)


def load_tensors(
    checkpoint: Checkpoint,
    path: Path,  # for the message
    size: int,  # of the file in bytes: each value of a tensor takes at least one
) -> dict[str, torch.Tensor]:
    """Read the tensors, after checking that their names and shapes match the configuration."""
    tensors = {f"G.{k}": v for k, v in checkpoint.G.items()} | {f"D.{k}": v for k, v in checkpoint.D.items()}
    return load_checked(tensors, _shapes(checkpoint.generator, checkpoint.discriminator), path, size)


def load_checked(
    tensors: Mapping[str, Loadable],
    expected: dict[str, tuple[int, ...]],  # their shapes
    path: Path,  # for the message
    size: int,  # of the file in bytes: each value of a tensor takes at least one
) -> dict[str, torch.Tensor]:
    """Read tensors, after checking their names and shapes."""
    names = expected.keys() | tensors.keys()
    wrong = sorted(name for name in names if name not in tensors or tensors[name].size != expected.get(name))
    if wrong:
        raise SganError(f"{path} does not match its own configuration: {', '.join(wrong[:8])}.")
    if sum(math.prod(t.size) for t in tensors.values() if not isinstance(t, ComputedTensor)) > size:
        raise SganError(f"{path} cannot be read: its tensors are larger than the file.")
    try:
        return {name: tensor.load() for name, tensor in tensors.items()}
    except (PickleError, *MALFORMED) as e:
        raise SganError(f"{path} cannot be read: {e if isinstance(e, PickleError) else type(e).__name__}.") from e


def _is_from_torch_save(file: Part) -> bool:
    return Part(file.file).read(4) == b"PK\3\4" or is_legacy(Part(file.file))


@torch.inference_mode()
def _measure_w_avg(G: Generator) -> None:
    """Calculate the mean of w, for truncation, for an unconditional model without one."""
    z = counter.normal(0, "w_avg", torch.arange(_W_AVG_SAMPLES), (G.config.z_dim,)).to(G.mapping.w_avg.device)
    c = torch.eye(G.config.c_dim)[torch.arange(len(z)) % G.config.c_dim] if G.config.c_dim else None
    labels = [None] * len(z) if c is None else c.split(500)
    ws = [G.mapping(part, label)[:, 0] for part, label in zip(z.split(500), labels)]
    G.mapping.w_avg.copy_(torch.cat(ws).mean(0))


@functools.lru_cache(4)
def _shapes(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig | None,
) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of both networks, by their names in a snapshot."""
    with torch.device("meta"):
        networks: dict[str, torch.nn.Module] = {"G": build_generator(generator)}
        if discriminator is not None:
            networks["D"] = build_discriminator(discriminator)
    pairs = [(key, pair) for key, network in networks.items() for pair in network.state_dict().items()]
    return {f"{key}.{name}": tuple(tensor.shape) for key, (name, tensor) in pairs}
