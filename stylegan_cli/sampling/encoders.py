"""Encoders and their files: one safetensors file per encoder, which belongs to the generator that it was fitted to.

Tensors are named `E.<name in the encoder's state_dict>`, and with skips `skips.<name in that of SkipSynthesis>`, unless
they are those of the generator. The header has the format and an `EncoderInfo` as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.dataset import DataSpec
from ..errors import SganError, quote
from ..models.encoders.pyramid import EncoderConfig, MappedEncoder, PyramidEncoder
from ..models.encoders.skips import SkipSynthesis
from ..models.generator import Generator
from ..runs import PACKAGED_MODEL, latest_snapshot, list_runs
from ..runs.records import ENCODER, PIX2PIX, read_config, recipe_of
from ..snapshot import ENCODER_FORMAT, build_and_load
from ..version import __version__
from .bound_files import check_model
from .file_kinds import FileKind

RUN_ENCODER = "encoder.safetensors"  # in a run of a model: that of the latest snapshot, see `sgan train`
BUNDLED_ENCODER = PACKAGED_MODEL.with_name("critters-encoder.safetensors")
_AGAIN = "Make one with `sgan encoder fit`."


@dataclass(frozen=True)
class EncoderInfo:
    """The contents of the header of an encoder's file."""

    encoder: EncoderConfig
    model: str  # fingerprint of the generator that it belongs to
    task: str = "invert"  # what it does with an image: 'invert', or a task of `sgan translate`
    data: DataSpec | None = None  # dataset that it was fitted to
    kimg: float = 0.0  # thousands of real images that it has seen
    held_out: dict = field(default_factory=dict)  # name -> mean over images that it has not seen
    task_options: dict = field(default_factory=dict)  # of the task
    skips: bool = False  # whether its features are added in a copy of the generator
    owner: dict = field(default_factory=dict)  # the model, see `Owner.settings`
    version: str = __version__  # version of the program that wrote it

    def __post_init__(self) -> None:
        if not all(type(value) in (int, float) for value in self.held_out.values()):
            raise ValueError("the figures on held-out images are not numbers")


ENCODER_FILE = FileKind(ENCODER_FORMAT, "an encoder", EncoderInfo, _AGAIN)


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder in memory."""

    network: Any  # see the docstring of models.encoders
    path: Path
    info: EncoderInfo | None  # None: it is from another program
    notes: tuple[str, ...] = ()  # what was guessed, and what its images have to be
    skips: SkipSynthesis | None = None  # takes the place of the generator's synthesis network

    @property
    def description(self) -> str:
        """Its file, and what is known of it."""
        if self.info is None:
            return str(self.path)
        known = [] if self.info.task == "invert" else [f"task {self.info.task}"]
        known += [f"held-out images: PSNR {self.info.held_out['psnr']:.1f} dB"] if "psnr" in self.info.held_out else []
        return f"{self.path} ({'; '.join(known)})" if known else str(self.path)

    @property
    def predicts_z(self) -> bool:
        return isinstance(self.network, MappedEncoder)

    @property
    def task(self) -> str:
        return self.info.task if self.info else "invert"


def save_encoder(
    path: str | Path,
    network: nn.Module,
    info: EncoderInfo,
    dtype: torch.dtype | None = None,  # precision of the stored tensors; None: unchanged
    skips: dict[str, Tensor] | None = None,  # see `SkipSynthesis.differences`
) -> None:
    """Write an encoder atomically. Raises SganError if the file cannot be written."""
    parts = {"E": network.state_dict(), "skips": skips or {}}
    named = {f"{prefix}.{name}": t for prefix, state in parts.items() for name, t in state.items()}
    ENCODER_FILE.save(path, {name: t.detach().to("cpu", dtype).contiguous() for name, t in named.items()}, info)


def load_encoder(
    path: str | Path,
    G: Generator,  # the model
    model: str,  # its fingerprint
) -> Encoder:
    """Load an encoder in float32 and eval mode.

    Raises SganError if the file is missing, damaged, not an encoder, or belongs to another model.
    """
    path = Path(path)
    with ENCODER_FILE.open(path) as (f, info):
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    check_model(path, info.model, model, info.owner)
    config = info.encoder
    size, own = (config.height, config.width, config.channels), G.config
    latents, inputs = (len(config.levels), config.w_dim), own.channels if info.task == "invert" else config.inputs
    expected = (1, own.z_dim) if config.space == "z" else (G.num_ws, own.w_dim)
    if size != (own.height, own.width, own.channels) or (*latents, config.inputs) != (*expected, inputs):
        raise SganError(f"{path} does not fit this model: its images or latents have other shapes.", hint=_AGAIN)
    network = build_and_load(lambda: PyramidEncoder(config), tensors, "E.", path).to(G.device)
    if config.space == "z":
        return Encoder(MappedEncoder(network, G.mapping, G.num_ws, own.w_dim).to(G.device), path, info)
    if not info.skips:
        return Encoder(network, path, info)
    own = {f"skips.synthesis.{name}": t.cpu() for name, t in G.synthesis.state_dict().items()}
    skips = build_and_load(lambda: SkipSynthesis(config, G.synthesis), own | tensors, "skips.", path)
    return Encoder(network, path, info, skips=skips.to(G.device))


def find_encoder(
    encoder: str | Path | None,  # a file, or a run folder: its latest snapshot; None: see below
    runs: str | Path,  # the folder of all runs
    model: str,  # fingerprint of the model
    task: str | None = "invert",  # None: any task of `sgan translate`
    file: Path | None = None,  # of the model
    hint: str | None = None,  # if there is none, see `how_to_make`
) -> Path:
    """Find an encoder; without a name, the newest in `runs` that was fitted to the model or trained with it, else that
    beside the model's file, which was trained with it, else the bundled one.

    Raises SganError if there is none.
    """
    if encoder is not None:
        path = Path(encoder)
        own = path / RUN_ENCODER
        snapshot = path if not path.is_dir() else own if own.is_file() else latest_snapshot(path)
        if snapshot is None:
            raise SganError(f"{encoder} contains no snapshot of an encoder.")
        return snapshot
    for folder in reversed(list_runs(runs)):
        config = read_config(folder)
        if task == "invert" and _is_for(beside := folder / RUN_ENCODER, model):
            return beside
        fits = (recipe_of(config), config.get("fingerprint")) == (ENCODER, model)
        made_for = config.get("task")
        if fits and (made_for != "invert" if task is None else made_for == task) and (path := latest_snapshot(folder)):
            return path
    own = file and file.with_name(RUN_ENCODER)
    if task == "invert" and (path := next((x for x in (own, BUNDLED_ENCODER) if x and _is_for(x, model)), None)):
        return path
    purpose = f" and the task {task}" if task not in (None, "invert") else ""
    if task == "invert" and own and ENCODER_FILE.is_kind_of(own):
        hint = f"Use that of another snapshot of the model's run: --encoder {quote(own)}"
    if task == "pairs" and (found := [x for x in list_runs(runs) if recipe_of(read_config(x)) == PIX2PIX]):
        hint = f"Use a translator without a model: --encoder {quote(found[-1])}"
    raise SganError(f"No run in {runs} has an encoder for this model{purpose}.", hint=hint)


def _is_for(path: Path, model: str) -> bool:
    """Whether a file is an encoder of the model with a fingerprint."""
    return ENCODER_FILE.is_kind_of(path) and ENCODER_FILE.read_info(path).model == model


def how_to_make(
    G: Generator,  # the model
    file: Path,  # of the model
    task: str | None = "invert",  # None: any task of `sgan translate`
) -> str:
    """A hint how to get an encoder for a model. One is fitted to models with styles, and trained with others."""
    if has_styles(G):
        command = "encoder fit" if task == "invert" else f"translate fit --task {task or 'superres'}"
        return f"Make one: sgan {command} --model {quote(file)}"
    if task == "invert":
        return "Train a model with its encoder: sgan train --recipe bigan"
    return "Use a model whose layers have styles: sgan train"


def has_styles(G: Generator) -> bool:
    """Whether there is more to predict than one latent for all layers."""
    return G.num_ws > 1 and any(row.kind != "input" for row in G.layers)
