"""One file, one model: safetensors with the configuration in its header.

Tensors are named `G.<name in the generator's state_dict>` (the moving average) and `D.<...>` (may be left out).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .config import from_json, to_json
from .data.dataset import Dataset, DataSpec, open_dataset
from .errors import SganError
from .files import atomic_path
from .layers import laid_out
from .models.config import DiscriminatorConfig, GeneratorConfig
from .models.discriminator import Discriminator
from .models.generator import Generator
from .models.registry import READERS, build_discriminator, build_generator
from .version import __version__

FORMAT = "stylegan_cli/1"
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class SnapshotInfo:
    """What a snapshot's header says about the model."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig | None = None  # None: the file holds no discriminator
    data: DataSpec | None = None  # what it was trained on
    kimg: float = 0.0  # thousands of images shown to the discriminator
    metrics: dict = field(default_factory=dict)  # name -> value
    origin: str = ""  # how it came about: the preset, or the file that it was made from
    version: str = __version__  # of the program that wrote it


@dataclass(frozen=True)
class Snapshot:
    """A model in memory."""

    G: Generator  # moving average of the generator's weights, in eval mode
    D: Discriminator | None
    info: SnapshotInfo
    path: Path

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.G)


def save_snapshot(
    path: str | Path,
    G: nn.Module,
    D: nn.Module | None,
    info: SnapshotInfo,
    dtype: torch.dtype | None = None,  # store in this precision; None: as it is
) -> None:
    """Write a model, whole or not at all. Raises SganError if the file cannot be written."""
    tensors = {f"G.{name}": tensor for name, tensor in G.state_dict().items()}
    if D is not None:
        tensors |= {f"D.{name}": tensor for name, tensor in D.state_dict().items()}
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()}
    info = dataclasses.replace(info, discriminator=info.discriminator if D is not None else None)
    header = {"format": FORMAT, "info": json.dumps(to_json(info))}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata=header))


def read_info(
    path: str | Path,
) -> SnapshotInfo:
    """The header alone. Raises SganError if the file is missing, cut short or no snapshot."""
    with _open(Path(path)) as f:
        return _info(Path(path), f.metadata())


def load_snapshot(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Snapshot:
    """A model as it was saved, in float32 and eval mode.

    Raises SganError if the file is missing, cut short, no snapshot, or does not fit its own configuration.
    """
    path = Path(path)
    with _open(path) as f:
        info = _info(path, f.metadata())
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no dict)
    return assemble(info, tensors, path, device)


def assemble(
    info: SnapshotInfo,
    tensors: dict[str, Tensor],  # G.<name>, D.<name>; they are taken out
    path: Path,  # where they come from
    device: torch.device | str = "cpu",
) -> Snapshot:
    """A model of its configuration and its weights. Raises SganError, naming some, if they do not fit each other."""
    G = _fill(lambda: build_generator(info.generator), tensors, "G.", path)
    judge = info.discriminator
    D = _fill(lambda: build_discriminator(judge), tensors, "D.", path) if judge else None
    return Snapshot(G.to(device), None if D is None else D.to(device), info, path)


def open_training_set(
    info: SnapshotInfo,
    data: str | None = None,  # others, read with the same labels
    size: tuple[int, int] | None = None,  # to read at; None: the model's, where the images can be read at it
) -> Dataset | None:
    """The images that a model was trained on, read as then; None if its snapshot names none and none are given.

    Raises SganError if they are not there any more, or others are in their place.
    """
    spec, drawn = info.data, (info.generator.height, info.generator.width)
    labeled = info.generator.c_dim > 0
    if data is not None:
        label = spec.label if spec and labeled else None
        classes = spec.classes if spec else ()
        dataset = open_dataset(data, size=size, mirror=bool(spec and spec.mirror), label=label, classes=classes)
        height, width = dataset.spec.height, dataset.spec.width
        fits = drawn[0] <= height and drawn[0] * width == drawn[1] * height
        return dataset.resized(*drawn) if fits and size is None else dataset
    if spec is None:
        return None
    changed = f"The images in {spec.path} are not those that the model was trained on."
    gone = "The images that the model was trained on cannot be opened"
    return spec.open(size=size, labels=labeled, changed_message=changed, missing_message=gone, hint="Give --data.")


def fingerprint(
    G: nn.Module,
) -> str:  # 16 hexadecimal digits
    """A name for the weights themselves: the same wherever and however they are stored in full precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(G.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open(path: Path) -> safetensors.safe_open:
    if not path.is_file():
        raise SganError(f"There is no file {path}.")
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as e:
        raise SganError(f"{path} is no snapshot, or it is cut short ({e}).") from e


def _info(path: Path, header: dict[str, str] | None) -> SnapshotInfo:
    if not header or header.get("format") != FORMAT:
        raise SganError(f"{path} is a safetensors file, but not a snapshot of this program.")
    try:
        return from_json(SnapshotInfo, json.loads(header["info"]), READERS)
    except (KeyError, ValueError, RecursionError, SganError) as e:
        raise SganError(f"{path} has a header that cannot be read ({e}).") from e


def _fill(build: Callable[[], N], tensors: dict[str, Tensor], prefix: str, path: Path) -> N:
    with torch.device("meta"):  # no memory: a file may say anything of shapes before its tensors are seen
        network = build()
    want = network.state_dict()
    # Taken out of the dictionary: a network is there once while it is laid out anew, not twice.
    state = {name.removeprefix(prefix): tensors.pop(name).float() for name in list(tensors) if name.startswith(prefix)}
    wrong = sorted(name for name in want.keys() | state.keys() if _shape(want, name) != _shape(state, name))
    if wrong:
        raise SganError(f"{path} does not fit its own configuration: {', '.join(prefix + name for name in wrong[:3])}.")
    if broken := [name for name, tensor in state.items() if not _is_finite(tensor)]:
        raise SganError(f"{path} holds numbers that are not finite, in {prefix + broken[0]} for one.")
    network.load_state_dict(state, assign=True)
    state.clear()
    return laid_out(network).eval().requires_grad_(False)


def _is_finite(tensor: Tensor) -> bool:
    """The sum shows what is not, in a pass without memory; it may also overflow."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
