"""Reader of TensorFlow pickles: StyleGAN2 (version 4) and StyleGAN2-ADA (version 5); StyleGAN is in `tensorflow1`.

A pickle has three networks: G, D, and Gs, the moving average of G. The architecture follows from the variable names.
"""

from __future__ import annotations

import re
from typing import Any

from ..models.config import GeneratorConfig, LevelsDiscriminatorConfig
from ..models.stylegan2.checkpoints import tensorflow_discriminator, tensorflow_generator
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import Part, PickleError
from . import tensorflow1
from .checkpoint import (
    Checkpoint,
    ComputedTensor,
    FormatError,
    Loadable,
    OtherContentError,
    infer_channels,
    map_names,
    shape_of,
)
from .modules import read_tree
from .tensorflow_network import Arguments, Network, count_of, levels_of, mapping_settings

_STYLEGAN2_VERSION = 4
_ADA_VERSION = 5  # StyleGAN2-ADA, which changed some defaults


def read_tensorflow(file: Part) -> Checkpoint:
    """Raises PickleError and FormatError."""
    tree = read_tree(file)
    if type(tree) not in (tuple, list) or len(tree) != 3 or not all(isinstance(part, Network) for part in tree):
        raise OtherContentError("it does not contain the three networks G, D and Gs")
    _, D, G = tree
    weights = G.variables("mapping", "synthesis")
    is_stylegan1 = G.version < _STYLEGAN2_VERSION or any("/StyleMod/" in name for name in weights)
    generator, tensors = (tensorflow1.generator_of if is_stylegan1 else generator_of)(G, weights)
    notes = ["The weights of G are omitted; its moving average Gs is used."]
    try:
        discriminator, d_tensors = (tensorflow1.discriminator_of if is_stylegan1 else discriminator_of)(D, generator)
    except FormatError as e:  # the generator is useful without it
        discriminator, d_tensors = None, {}
        notes.append(f"The discriminator is omitted: {e}.")
    if any("ToRGB_lod1/" in name for name in weights):
        notes.append("The outputs at lower resolutions, which only a growing network needs, are omitted.")
    if "synthesis/noise0" not in weights:
        notes.append("The network has no noise; its noise strength is set to zero.")
    if is_stylegan1 and f"synthesis/{2 * generator.height}x{2 * generator.height}/Conv1/bias" in weights:
        notes.append(f"The levels above {generator.height}, to which the network had not grown yet, are omitted.")
    name = "StyleGAN" if is_stylegan1 else "StyleGAN2-ADA" if G.version >= _ADA_VERSION else "StyleGAN2"
    return Checkpoint(f"{name} TensorFlow pickle", generator, tensors, discriminator, d_tensors, notes=tuple(notes))


def generator_of(
    G: Network,
    weights: dict[str, Loadable],
) -> tuple[StyleGAN2Config, dict[str, Loadable]]:
    arguments, levels = Arguments(G), levels_of(weights, r"synthesis/(\d+)x\1/Conv1/bias")
    arguments.require(nonlinearity="lrelu")
    lod = weights.get("synthesis/lod", weights.get("lod"))
    if lod is not None and lod.size == () and float(lod.load()) != 0:
        raise FormatError("its network was still growing, which is not supported for StyleGAN2")
    top = max(levels)
    to_rgb = "ToRGB_lod0" if "synthesis/ToRGB_lod0/bias" in weights else f"{top}x{top}/ToRGB"
    config = StyleGAN2Config(
        top,
        top,
        channels=shape_of(weights, f"synthesis/{to_rgb}/bias", 1)[0],
        architecture=_architecture(weights, f"synthesis/{top}x{top}/Skip/weight", "synthesis/4x4/ToRGB/weight"),
        **mapping_settings(weights, arguments),
        **_convolution_settings(arguments),
        **infer_channels({r: shape_of(weights, f"synthesis/{_first(r)}/bias", 1)[0] for r in (4, *levels)}),
    )
    if "synthesis/noise0" not in weights:
        weights = weights | _zero_noise(levels)
    return config, map_names(tensorflow_generator(config, levels, to_rgb), weights, _is_for_growing)


def discriminator_of(
    D: Network,
    generator: GeneratorConfig,  # of the same file
) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    weights, arguments = D.variables(), Arguments(D)
    levels = levels_of(weights, r"(\d+)x\1/Conv0/bias")
    arguments.require(nonlinearity="lrelu")
    top, labels = max(levels), "projection" if "LabelEmbed/weight" in weights else "dot"
    from_rgb = "FromRGB_lod0" if "FromRGB_lod0/bias" in weights else f"{top}x{top}/FromRGB"
    _, _, inputs, lowest = shape_of(weights, "4x4/Conv/weight", 4)
    features, outputs = shape_of(weights, "Output/weight", 2)
    if (
        {features, *shape_of(weights, "LabelEmbed/bias", 1)} != {lowest}
        if labels == "projection"
        else features != lowest
    ):
        raise FormatError("its last layers have different widths, which is not supported")
    if outputs != (generator.c_dim or 1) and labels == "dot":
        raise FormatError(f"it has {outputs} outputs per image")
    mapping_lr = arguments.get_float("mapping_lrmul", 0.1)
    if mapping_lr is None:
        raise PickleError("its mapping_lrmul is not a valid number")
    config = LevelsDiscriminatorConfig(
        top,
        top,
        channels=shape_of(weights, f"{from_rgb}/weight", 4)[2],
        c_dim=generator.c_dim,
        labels=labels if generator.c_dim else "projection",
        mapping_layers=count_of(weights, r"Mapping\d+/bias") if generator.c_dim and labels == "projection" else 8,
        mapping_lr=mapping_lr,
        architecture=_architecture(weights, f"{top}x{top}/Skip/weight", "4x4/FromRGB/weight"),
        mbstd_group=arguments.get_int("mbstd_group_size", None if D.version >= _ADA_VERSION else 4) or None,
        mbstd_channels=inputs - lowest,
        **_convolution_settings(arguments),
        **infer_channels(
            {r: shape_of(weights, f"{'4x4/Conv' if r == 4 else f'{r}x{r}/Conv0'}/bias", 1)[0] for r in (4, *levels)}
        ),
    )
    return config, map_names(tensorflow_discriminator(config, levels, from_rgb), weights, _is_for_growing)


def _convolution_settings(arguments: Arguments) -> dict[str, Any]:
    return {
        "fir": arguments.get_taps("resample_kernel", [1, 3, 3, 1], if_none=(1.0, 1.0)),
        "half_levels": arguments.get_int("num_fp16_res", 0),
        "conv_clamp": arguments.get_float("conv_clamp", None),
    }


def _first(level: int) -> str:
    return "4x4/Conv" if level == 4 else f"{level}x{level}/Conv1"


def _architecture(weights: dict[str, Loadable], skip_layer: str, lowest_rgb_layer: str) -> str:
    if skip_layer in weights:
        return "resnet"
    return "skip" if lowest_rgb_layer in weights else "orig"


def _is_for_growing(name: str) -> bool:
    return re.fullmatch(r"(synthesis/)?(lod|(ToRGB|FromRGB)_lod\d+/.*)", name) is not None


def _zero_noise(levels: list[int]) -> dict[str, Loadable]:
    noise: dict[str, Loadable] = {"synthesis/noise0": ComputedTensor((1, 1, 4, 4))}
    noise["synthesis/4x4/Conv/noise_strength"] = ComputedTensor(())
    for k, level in enumerate(levels):
        for i, name in enumerate(("Conv0_up", "Conv1"), 2 * k + 1):
            noise[f"synthesis/noise{i}"] = ComputedTensor((1, 1, level, level))
            noise[f"synthesis/{level}x{level}/{name}/noise_strength"] = ComputedTensor(())
    return noise
