"""The encoders in files of pSp, e4e and ReStyle, which hold an encoder, its generator (the decoder), and settings.

The files contain {'state_dict': {'encoder. ...', 'decoder. ...'}, 'latent_avg', 'opts'}. The architecture follows from
the weights, except what has none: whether latents add up (e4e), which `opts` name by the class of the encoder.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SganError, printable
from ..models.checkpoints import Names
from ..models.encoders.irse50 import IRSEConfig, IRSEEncoder
from ..models.encoders.passes import encode
from ..models.generator import Generator
from ..pickled import Part, PickleError
from ..snapshot import Snapshot, build_and_load
from .checkpoint import FormatError, Loadable, map_names, shape_of
from .identify import CONVERT_HELP
from .modules import Contents, Settings, read_tree
from .opening import MALFORMED, is_snapshot, load_checked, open_model


@dataclass(frozen=True)
class _Kind:
    """A class of encoders, by its name in the files."""

    program: str
    heads: str  # see IRSEConfig
    resnet: bool = False
    progressive: bool = False


_KINDS = {
    "GradualStyleEncoder": _Kind("pSp", "pyramid"),
    "ResNetGradualStyleEncoder": _Kind("pSp", "pyramid", resnet=True),
    "BackboneEncoderUsingLastLayerIntoW": _Kind("pSp", "mean"),
    "BackboneEncoderUsingLastLayerIntoWPlus": _Kind("pSp", "flat"),
    "Encoder4Editing": _Kind("e4e", "pyramid", progressive=True),
    "SingleStyleCodeEncoder": _Kind("e4e", "mean"),
    "BackboneEncoder": _Kind("pSp", "map"),
    "ResNetBackboneEncoder": _Kind("pSp", "map", resnet=True),
    "ProgressiveBackboneEncoder": _Kind("e4e", "map", progressive=True),
    "ResNetProgressiveBackboneEncoder": _Kind("e4e", "map", resnet=True, progressive=True),
}
_PREFIX = "encoder."  # of the names of its tensors
_MEAN = f"{_PREFIX}latent_avg"  # which is beside it in the files
_RESNET_STEM = {f"{_PREFIX}input_layer.{i}.": f"{_PREFIX}{name}." for i, name in enumerate(("conv1", "bn1", "relu"))}
_CARS = "cars_encode"  # the dataset type whose images are 4:3
_IR_BLOCKS = ((3, 4, 14, 3), (3, 13, 30, 3), (3, 8, 36, 3))  # of networks with 50, 100 and 152 layers
_RESNET_BLOCKS = ((3, 4, 6, 3),)
_PASSES = 5  # of ReStyle
_MAX_PASSES = 100
_MAX_MODULES = 64  # residual blocks, and latents


@dataclass(frozen=True, eq=False)
class OpenedEncoder:
    """An encoder with the generator whose latents it finds, on one device, in eval mode."""

    program: str  # 'pSp', 'e4e' or 'ReStyle'
    E: IRSEEncoder
    model: Snapshot  # of the generator
    notes: tuple[str, ...] = ()  # what was guessed, and what the images have to be

    def encode(
        self,
        images: Tensor,  # float [N, C, 256, 256] in [-1, 1], on the device of the networks
        passes: int | None = None,  # of ReStyle; None: as in training, usually 5
    ) -> Tensor:  # ws [N, num_ws, w_dim]
        """See `models.encoders.passes.encode`."""
        return encode(self.E, self.model.G, images, passes)


@dataclass(frozen=True, eq=False)
class _Found:
    program: str
    config: IRSEConfig
    tensors: dict[str, Loadable]  # by encoder.<our name>, without the mean
    latent_avg: Tensor  # [num_ws, w_dim]
    notes: tuple[str, ...]


def open_encoder(
    path: str | Path,  # a checkpoint of pSp, e4e or ReStyle
    device: torch.device | str = "cpu",
) -> OpenedEncoder:
    """Open the encoder and the generator in a checkpoint. Raises SganError if the file does not have both, or they do
    not belong together."""
    path = Path(path)
    if path.is_file() and is_snapshot(path):
        raise SganError(f"{path} is a snapshot, not a checkpoint of pSp, e4e or ReStyle with an encoder.")
    model = open_model(path, device)
    with open(path, "rb") as f:
        found = _find(Part(f), model.G, path)
        with torch.device("meta"):
            state = IRSEEncoder(found.config).state_dict(prefix=_PREFIX)
        shapes = {name: tuple(state[name].shape) for name in state if name != _MEAN}
        weights = load_checked(found.tensors, shapes, path, path.stat().st_size)
    weights[_MEAN] = found.latent_avg
    E = build_and_load(lambda: IRSEEncoder(found.config), weights, _PREFIX, path)
    return OpenedEncoder(found.program, E.to(device), model, found.notes)


def has_encoder(
    path: str | Path,
) -> bool:
    """Whether a file is a checkpoint of another program with an encoder. Reads no weights."""
    path = Path(path)
    if is_snapshot(path):
        return False
    contents = Contents()
    with contextlib.suppress(SganError, PickleError, FormatError, *MALFORMED), open(path, "rb") as f:
        contents.add(read_tree(Part(f)))
    return any(re.match(r"((?:[^.]+\.)*?)encoder\.", name) for name in contents.tensors)


def _find(
    file: Part,
    G: Generator,  # of the same file
    path: Path,  # for the message
) -> _Found:
    """Find the encoder in a file. Raises SganError with the reason why it cannot be used."""
    try:
        tree, contents = read_tree(file), Contents()
        contents.add(tree)
        return _describe(contents, _settings(tree), G)
    except FormatError as e:
        raise SganError(f"{path} cannot be used: {e}.", hint=CONVERT_HELP) from e
    except (PickleError, *MALFORMED) as e:
        cause = str(e).rstrip(".") if isinstance(e, PickleError) else f"it is malformed ({type(e).__name__})"
        raise SganError(f"{path} cannot be read: {cause}.") from e


def _describe(contents: Contents, opts: dict, G: Generator) -> _Found:
    weights = _weights(contents)
    name = opts.get("encoder_type")
    if type(name) is not str:
        raise FormatError("its opts do not name the class of its encoder (encoder_type)")
    if name not in _KINDS:
        raise FormatError(f"its encoder is a {printable(name[:80])}, which is not supported")
    kind = _KINDS[name]
    config = _config(weights, kind, opts, G)
    latent_avg, guesses = _latent_avg(contents.tensors.get("latent_avg"), config, opts, G)
    with torch.device("meta"):
        ours = [name for name in IRSEEncoder(config).state_dict(prefix=_PREFIX) if name != _MEAN]
    names: Names = {name: (_source(name) if kind.resnet else name, None) for name in ours}
    tensors = map_names(names, weights, lambda name: name.endswith(".num_batches_tracked"))
    program = "ReStyle" if config.iterative else kind.program
    return _Found(program, config, tensors, latent_avg, (*_input_notes(config, G), *guesses))


def _weights(contents: Contents) -> dict[str, Loadable]:  # by their names from 'encoder.' on
    found = {path: match[1] for path in contents.tensors if (match := re.match(r"((?:[^.]+\.)*?)encoder\.", path))}
    places = sorted(set(found.values()))
    if len(places) != 1:
        raise FormatError(f"it has {len(places)} encoders, not one" if places else "it has no encoder")
    return {path.removeprefix(places[0]): contents.tensors[path] for path in found}


def _settings(tree: Any) -> dict:
    opts = tree.get("opts") if isinstance(tree, dict) else None
    opts = opts.values if isinstance(opts, Settings) else opts
    return opts if isinstance(opts, dict) else {}


def _config(weights: dict[str, Loadable], kind: _Kind, opts: dict, G: Generator) -> IRSEConfig:
    stem, conv = ("conv1", "conv1") if kind.resnet else ("input_layer.0", "res_layer.1")
    channels = shape_of(weights, f"encoder.{stem}.weight", 4)[1]
    count = _count(weights, "body")
    widths = [shape_of(weights, f"encoder.body.{i}.{conv}.weight", 4)[0] for i in range(count)]
    stages = [(width, len(list(group))) for width, group in groupby(widths)]
    blocks = tuple(n for _, n in stages)
    if blocks not in (_RESNET_BLOCKS if kind.resnet else _IR_BLOCKS):
        raise FormatError(f"its encoder has stages of {blocks} residual blocks, which is not supported")
    excites = any(".res_layer.5." in name for name in weights)
    num_ws, w_dim = _latents(weights, kind.heads, G.num_ws)
    if (num_ws, w_dim) != (G.num_ws, G.synthesis.w_dim):
        expected = f"{G.num_ws} latents of {G.synthesis.w_dim} values"
        raise FormatError(f"its generator takes {expected}, but its encoder returns {num_ws} of {w_dim}")
    iterative = channels == 2 * G.config.channels and not opts.get("label_nc")
    passes = opts.get("n_iters_per_batch")
    return IRSEConfig(
        num_ws,
        w_dim,
        channels,
        backbone="resnet" if kind.resnet else "ir_se" if excites else "ir",
        blocks=blocks,
        widths=tuple(width for width, _ in stages),
        heads=kind.heads,
        progressive=kind.progressive,
        iterative=iterative,
        passes=(passes if type(passes) is int and 0 < passes <= _MAX_PASSES else _PASSES) if iterative else 1,
        letterbox=opts.get("dataset_type") == _CARS,
    )


def _latents(weights: dict[str, Loadable], heads: str, num_ws: int) -> tuple[int, int]:  # num_ws, w_dim
    if heads in ("pyramid", "map"):
        return _count(weights, "styles"), shape_of(weights, "encoder.styles.0.linear.weight", 2)[0]
    rows, w_dim = shape_of(weights, "encoder.linear.weight", 2)
    return (rows // w_dim, w_dim) if heads == "flat" else (num_ws, rows)


def _count(weights: dict[str, Loadable], name: str) -> int:
    """The number of modules in a list, by the highest index."""
    matches = [re.match(rf"encoder\.{name}\.(\d{{1,3}})\.", path) for path in weights]
    count = 1 + max((int(match[1]) for match in matches if match), default=-1)
    if not 1 <= count <= _MAX_MODULES:
        raise PickleError(f"it has {count} modules encoder.{name}")
    return count


def _source(name: str) -> str:
    """The name in the file of one of our tensors, for ResNet34."""
    start = next((start for start in _RESNET_STEM if name.startswith(start)), "")
    return _RESNET_STEM.get(start, "") + name.removeprefix(start)


def _latent_avg(
    tensor: Loadable | None,  # [w_dim] or [1 or num_ws, w_dim]
    config: IRSEConfig,
    opts: dict,
    G: Generator,
) -> tuple[Tensor, list[str]]:  # [num_ws, w_dim], and notes on what was guessed
    size, notes = (config.num_ws, config.w_dim), []
    starts = opts.get("start_from_latent_avg")
    if not config.iterative and starts is None:
        notes.append("The file does not say whether the encoder starts at the mean of w; it was assumed.")
    if not config.iterative and starts is not None and not starts:
        return torch.zeros(size), notes
    if tensor is None:
        notes.append("The file has no mean of w; it was measured with 10,000 latents.")
        return G.mapping.w_avg.detach().cpu().repeat(config.num_ws, 1), notes
    if tensor.size not in ((config.w_dim,), (1, config.w_dim), size):
        raise FormatError(f"its latent_avg has the shape {list(tensor.size)}, not {list(size)}")
    return tensor.load().float().expand(size).contiguous(), notes


def _input_notes(config: IRSEConfig, G: Generator) -> list[str]:
    notes = []
    if not config.iterative and config.input_channels != G.config.channels:
        what = "a sketch" if config.input_channels == 1 else "a mask per class"
        notes.append(f"The encoder takes {what} with values in [0, 1] instead of an image.")
    if config.letterbox:
        notes.append("The encoder takes 4:3 images that are padded to a square; it ignores the padding.")
    return notes
