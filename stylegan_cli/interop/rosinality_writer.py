"""Writer of a StyleGAN2 as a `.pt` file for rosinality's stylegan2-pytorch and programs based on it.

The names are the inverse of the reader's. rosinality's layers also have resampling kernels in their state, and some of
their parameters have additional dimensions of size 1.
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
from ..models.config import GeneratorConfig, LevelsDiscriminatorConfig
from ..models.discriminator import Discriminator
from ..models.generator import Generator
from ..models.levels_discriminator import LevelsDiscriminator
from ..models.stylegan2.checkpoints import rosinality_discriminator, rosinality_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..ops import fir_filter
from .checkpoint import require_levels

_TAPS = (1.0, 3.0, 3.0, 1.0)
_MAX_SIZE = 1024  # the largest level in rosinality's table of widths
_MULTIPLIERS = (1, 2)  # values of channel_multiplier; a higher one makes level 64 wider than the levels below
_OTHER_FORMATS = "An .onnx file supports every model, a .pkl (NVIDIA's format) most models."
_DROP_DISCRIMINATOR = "Remove it with --drop-discriminator."


def write_rosinality(
    path: Path,  # .pt
    G: Generator,  # moving average, written as g and g_ema
    D: Discriminator | None,
) -> None:
    """Write the exact state of rosinality's Generator(size, w_dim, mapping_layers, channel_multiplier) and
    Discriminator(size, channel_multiplier), in full precision. The programs use w_dim 512 and 8 mapping layers.

    The clamp of convolutions (conv_clamp) and the group size of the minibatch standard deviation, which is always 4,
    are lost. Raises SganError if rosinality's networks do not support the model, or if the file cannot be written.
    """
    check_layers(G.config)
    assert isinstance(G.config, StyleGAN2Config)  # checked by check_layers
    multipliers = check_widths(G.config)
    if (D := require_levels(D, G.config)) is not None:
        check_layers(D.config)
        if not multipliers & check_widths(D.config):
            raise SganError(
                "rosinality's networks share one channel_multiplier; those of this generator and discriminator differ.",
                hint=_DROP_DISCRIMINATOR,
            )
    write_unchecked(path, G, D)


def check_layers(
    config: GeneratorConfig | LevelsDiscriminatorConfig,
) -> None:
    """Raise SganError if rosinality's networks do not have such layers, whatever their width."""
    if isinstance(config, GeneratorConfig) and not isinstance(config, StyleGAN2Config):
        raise SganError(
            f"rosinality's generators support only StyleGAN2, not the family {config.family!r}.",
            hint="An .onnx file supports every model.",
        )
    h0, w0, _ = base_size(config.height, config.width)
    common = [
        (config.c_dim > 0, f"no classes, not {config.c_dim}"),
        (config.channels != 3, f"only RGB, not {config.channels} channels"),
        (
            (h0, w0) != (4, 4) or config.height > _MAX_SIZE,
            f"only squares of 8, 16, 32 ... {_MAX_SIZE} pixels, not {config.height}x{config.width}",
        ),
        (
            len(config.fir) != 4 or not torch.allclose(fir_filter(config.fir), fir_filter(_TAPS)),
            f"only the resampling filter 1,3,3,1, not {','.join(f'{tap:g}' for tap in config.fir)}",
        ),
    ]
    is_discriminator = isinstance(config, LevelsDiscriminatorConfig)
    specific = _discriminator_limits(config) if is_discriminator else _generator_limits(config)
    for is_violated, limit in common + specific:
        if is_violated:
            raise SganError(f"rosinality's {_role(config)}s support {limit}.", hint=_hint(config))


def _generator_limits(config: StyleGAN2Config) -> list[tuple[bool, str]]:
    return [
        (config.architecture != "skip", f"only the architecture 'skip', not {config.architecture!r}"),
        (config.input != "const", f"only a constant input, not {config.input!r}"),
        (not config.noise, "only layers with noise"),
        (config.mapping_lr != 0.01, f"only a mapping_lr of 0.01, not {config.mapping_lr:g}"),
        (config.z_dim != config.w_dim, f"only equal dimensions of z and w, not {config.z_dim} and {config.w_dim}"),
    ]


def _discriminator_limits(config: LevelsDiscriminatorConfig) -> list[tuple[bool, str]]:
    maps = config.mbstd_channels
    return [
        (config.architecture != "resnet", f"only the architecture 'resnet', not {config.architecture!r}"),
        (maps != 1, f"only 1 map of the minibatch standard deviation, not {maps}"),
        (config.codes > 0, f"no codes, not {config.codes}"),
    ]


def check_widths(
    config: StyleGAN2Config | LevelsDiscriminatorConfig,
) -> set[int]:  # values of channel_multiplier for the same widths; up to 32 pixels, all of them
    """Find the channel multiplier. Raises SganError if rosinality's networks do not have these widths."""
    widths = {level.name: level.channels for level in config.levels()}
    multipliers = {m for m in _MULTIPLIERS if all(width == _width(level, m) for level, width in widths.items())}
    if not multipliers:
        expected = "512 feature maps from level 4 to 32, then 256, 128, 64, 32, 16 times a channel_multiplier"
        actual = ", ".join(f"{width} at {level}" for level, width in widths.items())
        raise SganError(f"rosinality's {_role(config)}s have {expected}, not {actual}.", hint=_hint(config))
    return multipliers


def _width(level: int, multiplier: int) -> int:
    return 512 if level < 64 else 16384 // level * multiplier


def _role(config: StyleGAN2Config | LevelsDiscriminatorConfig) -> str:
    return "generator" if isinstance(config, GeneratorConfig) else "discriminator"


def _hint(config: StyleGAN2Config | LevelsDiscriminatorConfig) -> str:
    return _OTHER_FORMATS if isinstance(config, GeneratorConfig) else _DROP_DISCRIMINATOR


def write_unchecked(
    path: Path,
    G: Generator,
    D: LevelsDiscriminator | None,
) -> None:
    """Like `write_rosinality`, without the checks of layers and widths."""
    generator = _generator_state(G)
    tree = {"g_ema": generator, "g": generator, "latent_avg": _copy(G.mapping.w_avg)}
    if D is not None:
        tree["d"] = _discriminator_state(D)
    file = io.BytesIO()  # because the error of torch.save on a full disk is unclear
    torch.save(tree, file)
    write_atomic(path, file.getvalue())


def _generator_state(G: Generator) -> dict[str, Tensor]:
    levels = base_size(G.config.height, G.config.width)[2]
    names = rosinality_generator(G.mapping.num_layers, levels)
    up = _kernel() * 4  # compensates for the zeros between the pixels
    kernels = [name for j in range(levels) for name in (f"convs.{2 * j}.conv.blur", f"to_rgbs.{j}.upsample")]
    return _rename(G, names) | {f"{name}.kernel": up for name in kernels}


def _discriminator_state(D: LevelsDiscriminator) -> dict[str, Tensor]:
    levels = base_size(D.config.height, D.config.width)[2]
    kernels = [f"convs.{i}.{branch}.0.kernel" for i in range(1, levels + 1) for branch in ("conv2", "skip")]
    return _rename(D, rosinality_discriminator(levels)) | dict.fromkeys(kernels, _kernel())


def _rename(network: Generator | LevelsDiscriminator, names: Names) -> dict[str, Tensor]:
    state = network.state_dict()
    return {target: _add_dimensions(target, _copy(state[name])) for name, (target, _) in names.items()}


def _add_dimensions(
    name: str,  # in rosinality's state
    tensor: Tensor,  # from our state
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


def _copy(tensor: Tensor) -> Tensor:
    """A copy with its own storage: torch.save writes a view with the whole storage that it belongs to."""
    return tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)


def _kernel() -> Tensor:  # [4, 4]
    taps = fir_filter(_TAPS)
    return taps.outer(taps)
