"""Translators and their files: one safetensors file per translator, which needs no model.

Tensors are named `G.<name in the state_dict of UNet>`; the header has the format and a `TranslatorInfo` as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data.dataset import DataSpec
from ..files import existing_path
from ..models.translators.pix2pix import TranslatorConfig, UNet
from ..runs import latest_snapshot
from ..snapshot import TRANSLATOR_FORMAT, build_and_load
from ..version import __version__
from . import counter
from .file_kinds import FileKind


@dataclass(frozen=True)
class TranslatorInfo:
    """The contents of the header of a translator's file."""

    generator: TranslatorConfig
    data: DataSpec | None = None  # dataset of the images
    source: DataSpec | None = None  # dataset of the images to translate from
    kimg: float = 0.0  # thousands of pairs that it has seen
    held_out: dict = field(default_factory=dict)  # name -> mean over pairs that it has not seen
    version: str = __version__  # version of the program that wrote it

    def __post_init__(self) -> None:
        if not all(type(value) in (int, float) for value in self.held_out.values()):
            raise ValueError("the figures on held-out images are not numbers")


TRANSLATOR_FILE = FileKind(
    TRANSLATOR_FORMAT,
    "a translator",
    TranslatorInfo,
    "Make one with `sgan translate fit --task pairs --recipe pix2pix`.",
)


@dataclass(frozen=True, eq=False)
class Translator:
    """A translator in memory."""

    network: UNet
    path: Path
    info: TranslatorInfo

    @property
    def description(self) -> str:
        """Its file, and what is known of it."""
        known = ["pix2pix"]
        known += [f"held-out images: PSNR {self.info.held_out['psnr']:.1f} dB"] if "psnr" in self.info.held_out else []
        return f"{self.path} ({'; '.join(known)})"

    @torch.no_grad()
    def translate(
        self,
        inputs: Tensor,  # [N, inputs, H, W] in [-1, 1]
        seed: int | None = None,  # of the dropout, the same for all images; None: without
    ) -> Tensor:  # [N, C, H, W] in [-1, 1]
        if seed is None:
            return self.network(inputs)
        index = torch.full((1,), seed, dtype=torch.int64, device=inputs.device)
        return self.network(inputs, dropout(self.network, 0, index))


def dropout(
    G: UNet,
    seed: int,
    index: Tensor,  # [N] int64
) -> list[Tensor]:  # [N, C, h, w] each, in the order of `dropout_shapes`: 0 or 2, with equal probability
    shapes = {f"pix2pix.dropout{k}": shape for k, shape in enumerate(G.dropout_shapes)}
    return [(u < 0.5) * 2.0 for u in counter.uniforms(seed, shapes, index)]


def save_translator(
    path: str | Path,
    network: UNet,
    info: TranslatorInfo,
) -> None:
    """Write a translator atomically. Raises SganError if the file cannot be written."""
    state = network.state_dict()
    TRANSLATOR_FILE.save(path, {f"G.{name}": t.detach().cpu().contiguous() for name, t in state.items()}, info)


def load_translator(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Translator:
    """Load a translator in float32 and eval mode. Raises SganError if the file is missing, damaged or of another
    kind."""
    path = Path(path)
    with TRANSLATOR_FILE.open(path) as (f, info):
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    return Translator(build_and_load(lambda: UNet(info.generator), tensors, "G.", path).to(device), path, info)


def find_translator(
    path: str | Path | None,  # a file, or a run folder: its latest snapshot
) -> Path | None:
    """The file of a translator; None if the path is that of something else. Raises SganError if it does not exist."""
    if path is None:
        return None
    found = existing_path(path)
    file = latest_snapshot(found) if found.is_dir() else found
    return file if file is not None and TRANSLATOR_FILE.is_kind_of(file) else None
