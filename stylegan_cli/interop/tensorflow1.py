"""The networks of the StyleGAN of 2018 (version 3) in TensorFlow pickles: AdaIN, and growing levels.

They apply the gain of sqrt(2) before the bias and the activation. We do so only in synthesis; elsewhere we apply it
after both, so our bias is the original one divided by sqrt(2).

In a growing network, the variable `lod` is l + t: the image is generated at the l-th level from the top and blended
with that of the level below, (1 - t) image + t up(image below). The network is read up to that level.
"""

from __future__ import annotations

import re

import torch

from ..models.checkpoints import (
    Conversion,
    convolution,
    dense,
    flip_kernel,
    mapping_names,
    permute_kernel,
    squeeze_first,
)
from ..models.config import GeneratorConfig, LevelsDiscriminatorConfig
from ..models.stylegan.checkpoints import (
    divide_by_gain,
    tensorflow_d_layers,
    tensorflow_d_level,
    tensorflow_layers,
    tensorflow_level,
)
from ..models.stylegan.config import StyleGANConfig
from ..pickled import PickleError
from .checkpoint import ComputedTensor, FormatError, Loadable, infer_channels, map_names, shape_of
from .tensorflow_network import Arguments, Network, levels_of, mapping_settings

_FUSED = 128  # the lowest level for which fused_scale 'auto' means True


def generator_of(
    G: Network,
    weights: dict[str, Loadable],
) -> tuple[StyleGANConfig, dict[str, Loadable]]:
    arguments, levels = Arguments(G), [4, *levels_of(weights, r"synthesis/(\d+)x\1/Conv1/bias")]
    arguments.require(nonlinearity="lrelu", use_wscale=True, use_styles=True, const_input_layer=True, use_noise=True)
    arguments.require(use_instance_norm=True, use_pixel_norm=False)
    lod = _lod(weights, "synthesis/lod", levels)
    level, above = levels[-1 - int(lod)], levels[len(levels) - int(lod) :]
    config = StyleGANConfig(
        level,
        level,
        channels=shape_of(weights, f"synthesis/ToRGB_lod{int(lod)}/bias", 1)[0],
        truncated=arguments.get_int("truncation_cutoff", 8),
        fade=lod > int(lod),
        **mapping_settings(weights, arguments),
        **_convolution_settings(arguments),
        **infer_channels(
            {r: shape_of(weights, f"synthesis/{tensorflow_layers(r)[1]}/bias", 1)[0] for r in levels if r not in above}
        ),
    )
    names = mapping_names(config, divide_by_gain) | {"synthesis.const": ("synthesis/4x4/Const/const", squeeze_first)}
    for r in levels:
        if r <= level:
            names |= tensorflow_level(r, _upsampling_kernel(r, arguments))
    for r in _image_levels(config):
        names |= convolution(f"synthesis.pictures.torgb{r}", f"synthesis/ToRGB_lod{_lod_of(r, levels)}")
    unused = {source for r in above for source, _ in tensorflow_level(r, _upsampling_kernel(r, arguments)).values()}
    tensors = map_names(names, weights, lambda source: source in unused or _is_for_growing(source))
    return config, tensors | _alpha(config, "synthesis.pictures.alpha", lod, level, levels)


def discriminator_of(
    D: Network,
    generator: GeneratorConfig,  # of the same file
) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    weights, arguments, level = D.variables(), Arguments(D), generator.height
    levels = [4, *levels_of(weights, r"(\d+)x\1/Conv0/bias")]
    arguments.require(nonlinearity="lrelu", use_wscale=True)
    if level not in levels:
        raise FormatError("it is for images of a different size")
    used, above = [r for r in levels if r <= level], [r for r in levels if r > level]
    _, _, inputs, lowest = shape_of(weights, "4x4/Conv/weight", 4)
    features, outputs = shape_of(weights, "4x4/Dense1/weight", 2)
    if features != lowest:
        raise FormatError("its last layers have different widths, which is not supported")
    if outputs != (generator.c_dim or 1):
        raise FormatError(f"it has {outputs} outputs per image")
    config = LevelsDiscriminatorConfig(
        level,
        level,
        channels=shape_of(weights, f"FromRGB_lod{len(above)}/weight", 4)[2],
        c_dim=generator.c_dim,
        labels="dot" if generator.c_dim else "projection",
        mbstd_group=arguments.get_int("mbstd_group_size", 4) or None,
        mbstd_channels=inputs - lowest,
        fade=generator.fades,
        architecture="orig",
        conv_clamp=None,
        **_convolution_settings(arguments),
        **infer_channels({r: shape_of(weights, f"{tensorflow_d_layers(r)[0]}/bias", 1)[0] for r in used}),
    )
    names = dense("b4.fc", "4x4/Dense0", divide_by_gain) | dense("b4.out", "4x4/Dense1")
    for r in used:
        names |= tensorflow_d_level(r)
    for r in _image_levels(config):
        names |= convolution(f"b{r}.fromrgb", f"FromRGB_lod{_lod_of(r, levels)}", divide_by_gain)
    unused = {source for r in above for source, _ in tensorflow_d_level(r).values()}
    tensors = map_names(names, weights, lambda source: source in unused or _is_for_growing(source))
    return config, tensors | _alpha(config, "alpha", _lod(weights, "lod", levels), level, levels)


def _convolution_settings(arguments: Arguments) -> dict:
    blur = arguments.get_taps("blur_filter", [1, 2, 1], if_none=())[::-1]  # TensorFlow correlates
    return {"fir": (1.0, 1.0), "blur": blur, "half_levels": 0}


def _upsampling_kernel(r: int, arguments: Arguments) -> Conversion:
    """The conversion of an upsampling kernel. The original layer enlarges, then correlates. If fused into a transposed
    convolution it convolves, as in `StyledConv2d`: a different network with the same names."""
    fused = arguments.values.get("fused_scale", "auto")
    if type(fused) is not bool and (type(fused) is not str or fused != "auto"):
        raise PickleError("its fused_scale is invalid")
    return permute_kernel if fused is True or (fused == "auto" and r >= _FUSED) else flip_kernel


def _image_levels(config: GeneratorConfig | LevelsDiscriminatorConfig) -> tuple[int, ...]:
    """The levels with a toRGB or fromRGB."""
    return (config.height, config.height // 2) if config.fades else (config.height,)


def _lod_of(level: int, levels: list[int]) -> int:
    return len(levels) - 1 - levels.index(level)


def _lod(weights: dict[str, Loadable], name: str, levels: list[int]) -> float:
    """The level of detail, 0 if fully grown. Raises PickleError if the network has no such level."""
    value = weights.get(name)
    lod = float(value.load()) if value is not None and value.size == () else 0.0
    if not 0 <= lod <= len(levels) - 1:
        raise PickleError("its lod is not one of its levels")
    return lod


def _alpha(
    config: GeneratorConfig | LevelsDiscriminatorConfig,
    name: str,
    lod: float,
    level: int,
    levels: list[int],
) -> dict[str, Loadable]:
    if not config.fades:
        return {}
    alpha = min(max(1 - (lod - _lod_of(level, levels)), 0.0), 1.0)
    return {name: ComputedTensor((), lambda size: torch.full(size, alpha))}


def _is_for_growing(name: str) -> bool:
    return re.fullmatch(r"(synthesis/)?(lod|(ToRGB|FromRGB)_lod\d+/(weight|bias))", name) is not None
