"""Snapshots: one safetensors file with one model, and its configuration in the header.

Tensors are named `G.<name in the generator's state_dict>` (the moving average) and `D.<...>` (optional).
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
from .errors import SganError, quote
from .files import atomic_path, open_tensors
from .layers import to_memory_format
from .models.config import DiscriminatorConfig, GeneratorConfig
from .models.discriminator import Discriminator
from .models.generator import Generator
from .models.label_space import Codes, LabelSpace
from .models.registry import READERS, build_discriminator, build_generator
from .version import __version__

FORMAT = "stylegan_cli/1"
ENCODER_FORMAT = "stylegan_cli/encoder/1"  # see sampling.encoders
CRITIC_FORMAT = "stylegan_cli/critic/1"  # see sampling.critics
SEGMENTER_FORMAT = "stylegan_cli/segmenter/1"  # see sampling.segmenter_files
TRANSLATOR_FORMAT = "stylegan_cli/translator/1"  # see sampling.translators
_OTHER_FORMATS = {
    "stylegan_cli-state/1": "the state of a run",
    "stylegan_cli/tuned/1": "a file of tuned weights",
    CRITIC_FORMAT: "an attribute critic",
    SEGMENTER_FORMAT: "a segmenter",
}
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class SnapshotInfo:
    """The contents of a snapshot's header."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig | None = None  # None: the file holds no discriminator
    data: DataSpec | None = None  # training dataset
    kimg: float = 0.0  # thousands of images shown to the discriminator
    metrics: dict = field(default_factory=dict)  # name -> value
    origin: str = ""  # the preset it was trained with, or the file it was converted from
    run: str = ""  # random id of the training run; empty in files of older versions
    origins: tuple[str, ...] = ()  # ids of runs and fingerprints of models that the run was fine-tuned from
    codes: Codes = Codes()
    version: str = __version__  # version of the program that wrote it

    @property
    def is_labeled(self) -> bool:
        """Whether the classes are those of the dataset."""
        return self.generator.c_dim > 0 and not self.codes.values


@dataclass(frozen=True)
class Snapshot:
    """A model in memory."""

    G: Generator  # with the moving average of its weights, in eval mode
    D: Discriminator | None
    info: SnapshotInfo
    path: Path

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.G)

    @property
    def lineage(self) -> tuple[str, ...]:
        """The `origins` of a run that starts with these weights."""
        return (self.fingerprint, *filter(None, [self.info.run]), *self.info.origins)


def save_snapshot(
    path: str | Path,
    G: nn.Module,
    D: nn.Module | None,
    info: SnapshotInfo,
    dtype: torch.dtype | None = None,  # precision of the stored tensors; None: unchanged
) -> None:
    """Write a model atomically. Raises SganError if the file cannot be written."""
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
    """Read only the header. Raises SganError if the file is missing, truncated or not a snapshot."""
    with _open(Path(path)) as f:
        return _info(Path(path), f.metadata())


def load_snapshot(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Snapshot:
    """Load a model in float32 and eval mode.

    Raises SganError if the file is missing, truncated, not a snapshot, or does not match its own configuration.
    """
    path = Path(path)
    with _open(path) as f:
        info = _info(path, f.metadata())
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    return assemble(info, tensors, path, device)


def assemble(
    info: SnapshotInfo,
    tensors: dict[str, Tensor],  # G.<name>, D.<name>; emptied
    path: Path,  # file that they come from
    device: torch.device | str = "cpu",
) -> Snapshot:
    """Build a model from its configuration and weights. Raises SganError if they do not match."""
    G = build_and_load(lambda: build_generator(info.generator), tensors, "G.", path)
    config = info.discriminator
    D = build_and_load(lambda: build_discriminator(config), tensors, "D.", path) if config else None
    if info.data and info.data.c_dim == info.generator.c_dim:
        G.label_space = LabelSpace(info.data.c_dim, info.data.classes, info.data.vectors, info.codes)
    elif info.codes.values == info.generator.c_dim:
        G.label_space = LabelSpace(info.generator.c_dim, codes=info.codes)
    return Snapshot(G.to(device), None if D is None else D.to(device), info, path)


def build_and_load(
    build: Callable[[], N],
    tensors: dict[str, Tensor],  # those of the network are removed, so that each is in memory once
    prefix: str,  # of the names of the network's tensors
    path: Path,  # file that they come from
) -> N:
    """Build a network with given weights, in float32 and eval mode. Raises SganError if they do not match."""
    with torch.device("meta"):  # allocates nothing: the header may claim any size
        network = build()
    expected = network.state_dict()
    state = {name.removeprefix(prefix): tensors.pop(name).float() for name in list(tensors) if name.startswith(prefix)}
    wrong = sorted(name for name in expected.keys() | state.keys() if _shape(expected, name) != _shape(state, name))
    if wrong:
        names = ", ".join(prefix + name for name in wrong[:3])
        raise SganError(f"{path} does not match its own configuration: {names}.")
    if broken := [name for name, tensor in state.items() if not _is_finite(tensor)]:
        raise SganError(f"{path} contains values that are not finite, for example in {prefix + broken[0]}.")
    network.load_state_dict(state, assign=True)
    state.clear()
    return to_memory_format(network).eval().requires_grad_(False)


def open_training_dataset(
    info: SnapshotInfo,
    data: str | None = None,  # another dataset, to be read with the same labels
    size: tuple[int, int] | None = None,  # size to read the images at; None: the model's, if they are large enough
) -> Dataset | None:
    """Open the dataset that a model was trained on, as in training; None if the snapshot and `data` name none.

    Raises SganError if it no longer exists or has changed.
    """
    spec, model_size = info.data, (info.generator.height, info.generator.width)
    labeled = info.is_labeled
    if data is not None:
        label = spec.label if spec and labeled else None
        classes = spec.classes if spec else ()
        dataset = open_dataset(data, size=size, mirror=bool(spec and spec.mirror), label=label, classes=classes)
        height, width = dataset.spec.height, dataset.spec.width
        fits = model_size[0] <= height and model_size[0] * width == model_size[1] * height
        return dataset.resized(*model_size) if fits and size is None else dataset
    if spec is None:
        return None
    changed = f"The dataset {spec.path} has changed since the model was trained on it."
    missing = "The model's training dataset cannot be opened"
    return spec.open(size=size, labels=labeled, changed_message=changed, missing_message=missing, hint="Use --data.")


def fingerprint(
    G: nn.Module,
) -> str:  # 16 hexadecimal digits
    """Hash the weights, independently of the memory layout and of the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(G.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open(path: Path) -> safetensors.safe_open:
    if not path.is_file():
        raise SganError(f"{path} does not exist.")
    try:
        return open_tensors(path)
    except (safetensors.SafetensorError, OSError) as e:
        raise SganError(f"{path} is not a snapshot, or is truncated ({e}).") from e


def _info(path: Path, header: dict[str, str] | None) -> SnapshotInfo:
    for format, what, use in (
        (ENCODER_FORMAT, "an encoder", "encode"),
        (TRANSLATOR_FORMAT, "a translator of pix2pix", "translate"),
    ):
        if header and header.get("format") == format:
            hint = f"Use it: sgan {use} IMAGE --encoder {quote(path)}"
            raise SganError(f"{path} is {what}, not a model.", hint=hint)
    if what := _OTHER_FORMATS.get((header or {}).get("format", "")):
        raise SganError(f"{path} is {what}, not a snapshot.", hint="Use a snapshot-*.safetensors, or its run folder.")
    if not header or header.get("format") != FORMAT:
        raise SganError(f"{path} is a safetensors file, but not a stylegan_cli snapshot.")
    try:
        return from_json(SnapshotInfo, json.loads(header["info"]), READERS)
    except (KeyError, ValueError, RecursionError, SganError) as e:
        raise SganError(f"{path} has an invalid header ({e}).") from e


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite. The sum needs no extra memory, but may overflow; then each value is checked."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
