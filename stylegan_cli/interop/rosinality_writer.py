"""A StyleGAN2 as a `.pt` for rosinality's stylegan2-pytorch, and for what is built on it.

The names are those of the reader, turned round. Added is what their layers keep besides: resampling kernels, and the
sides of length 1 that some of their parameters have.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from ..config import base_size
from ..errors import SganError
from ..files import write_atomic
from ..models.checkpoints import Names
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.discriminator import Discriminator
from ..models.generator import Generator
from ..models.stylegan2.checkpoints import rosinality_discriminator, rosinality_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..ops import fir_filter

_TAPS = (1.0, 3.0, 3.0, 1.0)
_LARGEST = 1024  # their tables of widths end there
_MULTIPLIERS = (1, 2)  # their channel_multiplier; with a higher one level 64 is wider than those below it
_OTHER_FORMS = "An .onnx file can hold any model, a .pkl (NVIDIA's form) most."
_WITHOUT = "Leave it out: --drop-discriminator."


def write_rosinality(
    path: Path,  # .pt
    G: Generator,  # moving average; the file's `g`, which training would go on from, is the same
    D: Discriminator | None,
) -> None:
    """Write what their Generator(size, w_dim, mapping_layers, channel_multiplier) and Discriminator(size,
    channel_multiplier) load strictly, in full precision; their programs call the first with w_dim 512 and 8 layers.

    What is lost: the bound on convolutions (conv_clamp), and the group of the minibatch standard deviation, which is
    4 there. Raises SganError if their networks cannot be such a model, or if the file cannot be written.
    """
    check_layers(G.config)
    assert isinstance(G.config, StyleGAN2Config)  # others were refused
    multipliers = check_widths(G.config)
    if D is not None:
        check_layers(D.config)
        if not multipliers & check_widths(D.config):
            raise SganError(
                "rosinality's networks have one channel_multiplier: this generator and this discriminator have two.",
                hint=_WITHOUT,
            )
    write_unchecked(path, G, D)


def check_layers(
    config: GeneratorConfig | DiscriminatorConfig,
) -> None:
    """Raises SganError if their networks have no such layers, however wide."""
    if isinstance(config, GeneratorConfig) and not isinstance(config, StyleGAN2Config):
        raise SganError(
            f"rosinality's generators are StyleGAN2s: this one is of the family {config.family!r}.",
            hint="An .onnx file can hold any model.",
        )
    h0, w0, _ = base_size(config.height, config.width)
    both = [
        (config.c_dim > 0, f"take no classes: this one knows {config.c_dim}"),
        (config.channels != 3, f"draw and judge RGB: this one has {config.channels} channels"),
        (
            (h0, w0) != (4, 4) or config.height > _LARGEST,
            f"are for squares of 8, 16, 32 and so on to {_LARGEST} pixels: this one has {config.height}x{config.width}",
        ),
        (
            len(config.fir) != 4 or not torch.allclose(fir_filter(config.fir), fir_filter(_TAPS)),
            f"resample by 1,3,3,1: this one by {','.join(f'{tap:g}' for tap in config.fir)}",
        ),
    ]
    own = _discriminator_lacks(config) if isinstance(config, DiscriminatorConfig) else _generator_lacks(config)
    for lacking, what in both + own:
        if lacking:
            raise SganError(f"rosinality's {_kind(config)}s {what}.", hint=_hint(config))


def _generator_lacks(config: StyleGAN2Config) -> list[tuple[bool, str]]:
    return [
        (config.architecture != "skip", f"have the architecture 'skip': this one has {config.architecture!r}"),
        (config.mapping_lr != 0.01, f"have a mapping_lr of 0.01: this one has {config.mapping_lr:g}"),
        (config.z_dim != config.w_dim, f"have z as long as w: this one has {config.z_dim} and {config.w_dim} numbers"),
    ]


def _discriminator_lacks(config: DiscriminatorConfig) -> list[tuple[bool, str]]:
    maps = config.mbstd_channels
    return [
        (config.architecture != "resnet", f"have the architecture 'resnet': this one has {config.architecture!r}"),
        (maps != 1, f"have 1 map of the minibatch standard deviation: this one has {maps}"),
    ]


def check_widths(
    config: StyleGAN2Config | DiscriminatorConfig,
) -> set[int]:  # each channel_multiplier with which theirs is as wide; up to 32 pixels all are
    """Raises SganError if there is none."""
    widths = {level.name: level.channels for level in config.levels()}
    found = {m for m in _MULTIPLIERS if all(width == _their_width(level, m) for level, width in widths.items())}
    if not found:
        theirs = "512 feature maps from level 4 to 32, then 256, 128, 64, 32, 16 times a channel_multiplier"
        told = ", ".join(f"{width} at {level}" for level, width in widths.items())
        raise SganError(f"rosinality's {_kind(config)}s have {theirs}: this one has {told}.", hint=_hint(config))
    return found


def _their_width(level: int, multiplier: int) -> int:
    return 512 if level < 64 else 16384 // level * multiplier


def _kind(config: StyleGAN2Config | DiscriminatorConfig) -> str:
    return "generator" if isinstance(config, GeneratorConfig) else "discriminator"


def _hint(config: StyleGAN2Config | DiscriminatorConfig) -> str:
    return _OTHER_FORMS if isinstance(config, GeneratorConfig) else _WITHOUT


def write_unchecked(
    path: Path,
    G: Generator,
    D: Discriminator | None,
) -> None:
    """`write_rosinality` for networks whose layers are known to be theirs, of any width."""
    generator = _generator(G)
    tree = {"g_ema": generator, "g": generator, "latent_avg": _plain(G.mapping.w_avg)}
    if D is not None:
        tree["d"] = _discriminator(D)
    file = io.BytesIO()  # on a full disk torch.save itself raises what does not say so
    torch.save(tree, file)
    write_atomic(path, file.getvalue())


def _generator(G: Generator) -> dict[str, Tensor]:  # their names
    levels = base_size(G.config.height, G.config.width)[2]
    names = rosinality_generator(G.mapping.num_layers, levels)
    up = _kernel() * 4  # zeros between the pixels take three quarters of the light
    kernels = [name for j in range(levels) for name in (f"convs.{2 * j}.conv.blur", f"to_rgbs.{j}.upsample")]
    return _renamed(G, names) | {f"{name}.kernel": up for name in kernels}


def _discriminator(D: Discriminator) -> dict[str, Tensor]:  # their names
    levels = base_size(D.config.height, D.config.width)[2]
    kernels = [f"convs.{i}.{branch}.0.kernel" for i in range(1, levels + 1) for branch in ("conv2", "skip")]
    return _renamed(D, rosinality_discriminator(levels)) | dict.fromkeys(kernels, _kernel())


def _renamed(network: Generator | Discriminator, names: Names) -> dict[str, Tensor]:
    ours = network.state_dict()
    return {their: _with_their_sides(their, _plain(ours[our])) for our, (their, _) in names.items()}


def _with_their_sides(
    name: str,  # theirs
    tensor: Tensor,  # ours
) -> Tensor:
    if name == "input.input" or name.endswith(".conv.weight"):
        return tensor[None]  # [1, C, 4, 4], [1, out, in, K, K]
    if name.startswith("noises."):
        return tensor[None, None]  # [1, 1, H, W]
    if name.endswith(".noise.weight"):
        return tensor.reshape(1)
    if name.startswith("to_rgb") and not name.endswith((".modulation.bias", ".weight")):
        return tensor.reshape(1, -1, 1, 1)
    return tensor


def _plain(tensor: Tensor) -> Tensor:
    """By itself: a part of a larger one would be saved with all of it."""
    return tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)


def _kernel() -> Tensor:  # [4, 4]
    taps = fir_filter(_TAPS)
    return taps.outer(taps)
