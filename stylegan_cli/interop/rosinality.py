"""Networks of rosinality's stylegan2-pytorch and programs based on it: pSp, e4e, ReStyle.

The files are written by torch.save and contain {'g_ema', 'd', 'args' ...}, or {'state_dict': {'decoder. ...'},
'latent_avg' ...}. The networks are 'skip' generators and 'resnet' discriminators without labels; unlike TensorFlow's,
their convolution kernels are not flipped.
"""

from __future__ import annotations

import re
from typing import Any

from ..models.config import GeneratorConfig, LevelsDiscriminatorConfig
from ..models.stylegan2.checkpoints import first_row, rosinality_discriminator, rosinality_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import PickleError
from .checkpoint import (
    ComputedTensor,
    ConvertedTensor,
    FormatError,
    Loadable,
    infer_channels,
    map_names,
    random_noise,
    shape_of,
)

_MAX_MODULES = 16  # number of levels above the lowest, and of mapping layers


def generator_of(
    weights: dict[str, Any],
    w_avg: Loadable | None,  # [w_dim] or [copies, w_dim]
) -> tuple[StyleGAN2Config, dict[str, Loadable], tuple[str, ...]]:  # and notes on what was guessed
    if any(".iwt." in name for name in weights):
        raise FormatError("it is a SWAGAN, which generates wavelets and is not supported")
    levels = _count(weights, "to_rgbs", "bias")
    _, rows, h0, w0 = shape_of(weights, "input.input", 4)
    widths = {4: rows} | {8 << j: shape_of(weights, f"convs.{2 * j}.activate.bias", 1)[0] for j in range(levels)}
    w_dim = shape_of(weights, "conv1.conv.modulation.weight", 2)[1]
    mapping = _count(weights, "style", "weight")
    config = StyleGAN2Config(
        h0 << levels,
        w0 << levels,
        channels=shape_of(weights, "to_rgb1.bias", 4)[1],
        z_dim=shape_of(weights, "style.1.weight", 2)[1],
        w_dim=w_dim,
        mapping_layers=mapping,
        architecture="skip",
        half_levels=0,
        conv_clamp=None,
        **infer_channels(widths),
    )
    names = rosinality_generator(mapping, levels)
    notes = []
    if "noises.noise_0" not in weights:  # the first versions did not save it
        noises = [name for name in names if name.endswith(".noise_const")]
        weights = weights | {names[n][0]: random_noise(n, (1, 1, *_noise_size(n, h0, w0))) for n in noises}
        notes.append("The file has no noise; the constant noise was sampled.")
    tensors = map_names(names, weights, lambda name: name.endswith(".kernel"))
    if w_avg is not None:  # pSp repeats it for each layer
        return config, tensors | {"mapping.w_avg": ConvertedTensor(w_avg, first_row)}, tuple(notes)
    return config, tensors | {"mapping.w_avg": ComputedTensor((w_dim,))}, tuple(notes)


def discriminator_of(
    weights: dict[str, Any],
    generator: GeneratorConfig,  # of the same file
) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    blocks = _count(weights, "convs", "conv1.0.weight")
    inputs = {4 << (blocks + 1 - i): shape_of(weights, f"convs.{i}.conv1.1.bias", 1)[0] for i in range(1, blocks + 1)}
    config = LevelsDiscriminatorConfig(
        generator.height,
        generator.width,
        channels=shape_of(weights, "convs.0.0.weight", 4)[1],
        architecture="resnet",
        half_levels=0,
        conv_clamp=None,
        **infer_channels(inputs | {4: shape_of(weights, "final_conv.1.bias", 1)[0]}),
    )
    names = rosinality_discriminator(blocks)
    return config, map_names(names, weights, lambda name: name.endswith(".kernel"))


def _count(weights: dict[str, Any], start: str, end: str) -> int:
    """The number of modules in a list. It counts names, because the indices in them may be wrong."""
    count = sum(bool(re.fullmatch(rf"{start}\.\d+\.{end}", str(name))) for name in weights)
    if not 1 <= count <= _MAX_MODULES:
        raise PickleError(f"it has {count} modules {start}")
    return count


def _noise_size(name: str, h0: int, w0: int) -> tuple[int, int]:
    scale = int(name.split(".")[1][1:]) // 4
    return h0 * scale, w0 * scale
