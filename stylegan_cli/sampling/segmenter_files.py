"""Files of segmenters: one safetensors file, which belongs to the generator that it was fitted to.

Tensors are `weight.<name of a layer>` [K, C] and `bias` [K]. The header has the format and a `SegmenterInfo` as JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.pairs import MAX_CLASSES
from ..errors import SganError, quote
from ..models.generator import Generator
from ..snapshot import SEGMENTER_FORMAT
from ..version import __version__
from .bound_files import check_model
from .file_kinds import FileKind
from .segmenter import Linear, feature_layers

DEFAULT_FILE = "segmenter.safetensors"
_AGAIN = "Make one: sgan segment fit --annotated DIR"


@dataclass(frozen=True)
class SegmenterInfo:
    """The contents of the header of a segmenter's file."""

    classes: tuple[str, ...]  # their colors, #rrggbb, sorted
    model: str  # fingerprint of the generator that it belongs to
    method: str = "linear"
    examples: int = 0  # annotated images
    iou: dict = field(default_factory=dict)  # intersection over union of images held out: `mean`, and by color
    owner: dict = field(default_factory=dict)  # the model, see `Owner.settings`
    version: str = __version__  # version of the program that wrote it

    def __post_init__(self) -> None:
        colors = [c for c in self.classes if isinstance(c, str) and re.fullmatch("#[0-9a-f]{6}", c)]
        if tuple(sorted(set(colors))) != self.classes or not 2 <= len(colors) <= MAX_CLASSES:
            raise ValueError(f"the classes must be 2 to {MAX_CLASSES} sorted colors")


SEGMENTER_FILE = FileKind(SEGMENTER_FORMAT, "a segmenter", SegmenterInfo, _AGAIN)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A segmenter in memory."""

    linear: Linear
    info: SegmenterInfo
    path: Path

    @property
    def palette(self) -> Tensor:  # uint8 [K, 3]
        return palette(self.info.classes)


def palette(
    classes: tuple[str, ...],
) -> Tensor:  # uint8 [K, 3]
    return torch.tensor([list(bytes.fromhex(color[1:])) for color in classes], dtype=torch.uint8)


def colored(
    maps: Tensor,  # [N, H, W] integers; negative: not annotated
    classes: tuple[str, ...],
) -> Tensor:  # uint8 [N, 3, H, W]
    """Class maps in the colors of their classes; what is not annotated is gray."""
    colors = torch.cat([palette(classes), torch.full((1, 3), 128, dtype=torch.uint8)])
    return colors[maps.cpu().long()].permute(0, 3, 1, 2)


def save_segmenter(
    path: str | Path,
    linear: Linear,
    info: SegmenterInfo,
) -> None:
    """Write a segmenter atomically. Raises SganError if the file cannot be written."""
    named = {"bias": linear.bias, **{f"weight.{name}": w for name, w in linear.weights.items()}}
    SEGMENTER_FILE.save(path, {name: t.detach().float().cpu().contiguous() for name, t in named.items()}, info)


def load_segmenter(
    path: str | Path,
    G: Generator,  # the model
    model: str,  # its fingerprint
) -> Segmenter:
    """Load a segmenter. Raises SganError if the file is missing, damaged, not one, or belongs to another model."""
    path = Path(path)
    with SEGMENTER_FILE.open(path) as (f, info):
        check_model(path, info.model, model, info.owner)
        layers = {f"weight.{row.name}": row for row in feature_layers(G.synthesis)}
        expected = {name: [len(info.classes), row.channels] for name, row in layers.items()}
        expected["bias"] = [len(info.classes)]
        shapes = {name: list(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118 (not a dict)
        fits = all(expected.get(name) == shape for name, shape in shapes.items())
        if len(shapes) < 2 or "bias" not in shapes or not fits:
            raise SganError(f"{path} does not fit this model: its layers or classes are others.", hint=_AGAIN)
        tensors = {name: f.get_tensor(name).float() for name in shapes}
    if broken := [name for name, t in tensors.items() if not t.isfinite().all()]:
        raise SganError(f"{path} contains values that are not finite, for example in {broken[0]}.", hint=_AGAIN)
    weights = {row.name: tensors[name].to(G.device) for name, row in layers.items() if name in tensors}
    return Segmenter(Linear(weights, tensors["bias"].to(G.device)), info, path)


def find_segmenter(
    segmenter: str | Path | None,  # a file; None: that in ./out
    model: Path,  # the model's file, for the message
) -> Path:
    """Raises SganError if there is none."""
    path = Path("out", DEFAULT_FILE) if segmenter is None else Path(segmenter)
    if segmenter is None and not path.is_file():
        hint = f"{_AGAIN} --model {quote(model)}, or name one: --segmenter FILE"
        raise SganError(f"There is no segmenter {path}.", hint=hint)
    return path
