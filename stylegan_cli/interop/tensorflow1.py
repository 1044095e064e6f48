"""The networks of 2018's StyleGAN (version 3) in TensorFlow's pickles: AdaIN, and levels that grow.

Their gain of sqrt(2) is in front of the bias and the activation. Ours is there in synthesis; elsewhere it comes after
both, and the bias is theirs divided by it.

While a network grew, its variable `lod` was l + t: the image is made at the l-th level from the top, and blended with
that of the level below, (1 - t) image + t up(image below). What is read is the network up to that level.
"""

from __future__ import annotations

import re

import torch

from ..models.checkpoints import Change, convolution, dense, flipped, kernel_of, mapping_names, only
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.stylegan.checkpoints import (
    before_gain,
    tensorflow_judging,
    tensorflow_judging_level,
    tensorflow_layers,
    tensorflow_level,
)
from ..models.stylegan.config import StyleGANConfig
from ..pickled import PickleError
from .foreign import FormatError, Loadable, Made, channel_widths, ours, shape_of
from .tensorflow_network import Arguments, Network, levels_of, mapping_of

_FUSED = 128  # the level from which on 'auto' is fused


def generator_of(
    G: Network,
    weights: dict[str, Loadable],
) -> tuple[StyleGANConfig, dict[str, Loadable]]:
    told, levels = Arguments(G), [4, *levels_of(weights, r"synthesis/(\d+)x\1/Conv1/bias")]
    told.must(nonlinearity="lrelu", use_wscale=True, use_styles=True, const_input_layer=True, use_noise=True)
    told.must(use_instance_norm=True, use_pixel_norm=False)
    lod = _lod(weights, "synthesis/lod", levels)
    level, above = levels[-1 - int(lod)], levels[len(levels) - int(lod) :]
    config = StyleGANConfig(
        level,
        level,
        channels=shape_of(weights, f"synthesis/ToRGB_lod{int(lod)}/bias", 1)[0],
        truncated=told.whole("truncation_cutoff", 8),
        fade=lod > int(lod),
        **mapping_of(weights, told),
        **_of_convolutions(told),
        **channel_widths(
            {r: shape_of(weights, f"synthesis/{tensorflow_layers(r)[1]}/bias", 1)[0] for r in levels if r not in above}
        ),
    )
    names = mapping_names(config, before_gain) | {"synthesis.const": ("synthesis/4x4/Const/const", only)}
    for r in levels:
        if r <= level:
            names |= tensorflow_level(r, _enlarging(r, told))
    for r in _seen(config):
        names |= convolution(f"synthesis.pictures.torgb{r}", f"synthesis/ToRGB_lod{_lod_of(r, levels)}")
    spare = {their for r in above for their, _ in tensorflow_level(r, _enlarging(r, told)).values()}
    tensors = ours(names, weights, lambda name: name in spare or _is_of_growing(name))
    return config, tensors | _alpha(config, "synthesis.pictures.alpha", lod, level, levels)


def discriminator_of(
    D: Network,
    generator: GeneratorConfig,  # of the same file
) -> tuple[DiscriminatorConfig, dict[str, Loadable]]:
    weights, told, level = D.variables(), Arguments(D), generator.height
    levels = [4, *levels_of(weights, r"(\d+)x\1/Conv0/bias")]
    told.must(nonlinearity="lrelu", use_wscale=True)
    if level not in levels:
        raise FormatError("it judges images of another size")
    kept, above = [r for r in levels if r <= level], [r for r in levels if r > level]
    _, _, seen, lowest = shape_of(weights, "4x4/Conv/weight", 4)
    features, scores = shape_of(weights, "4x4/Dense1/weight", 2)
    if features != lowest:
        raise FormatError("its last layers have several widths, which ours have not")
    if scores != (generator.c_dim or 1):
        raise FormatError(f"it gives {scores} numbers for an image")
    config = DiscriminatorConfig(
        level,
        level,
        channels=shape_of(weights, f"FromRGB_lod{len(above)}/weight", 4)[2],
        c_dim=generator.c_dim,
        labels="dot" if generator.c_dim else "projection",
        mbstd_group=told.whole("mbstd_group_size", 4) or None,
        mbstd_channels=seen - lowest,
        fade=generator.fades,
        architecture="orig",
        conv_clamp=None,
        **_of_convolutions(told),
        **channel_widths({r: shape_of(weights, f"{tensorflow_judging(r)[0]}/bias", 1)[0] for r in kept}),
    )
    names = dense("b4.fc", "4x4/Dense0", before_gain) | dense("b4.out", "4x4/Dense1")
    for r in kept:
        names |= tensorflow_judging_level(r)
    for r in _seen(config):
        names |= convolution(f"b{r}.fromrgb", f"FromRGB_lod{_lod_of(r, levels)}", before_gain)
    spare = {their for r in above for their, _ in tensorflow_judging_level(r).values()}
    tensors = ours(names, weights, lambda name: name in spare or _is_of_growing(name))
    return config, tensors | _alpha(config, "alpha", _lod(weights, "lod", levels), level, levels)


def _of_convolutions(told: Arguments) -> dict:
    blur = told.taps("blur_filter", [1, 2, 1], none=())[::-1]  # theirs correlates
    return {"fir": (1.0, 1.0), "blur": blur, "half_levels": 0}


def _enlarging(r: int, told: Arguments) -> Change:
    """Theirs enlarges, then correlates. Fused into one transposed convolution it convolves, as ours does: that is
    another network, with the same names."""
    fused = told.values.get("fused_scale", "auto")
    if type(fused) is not bool and (type(fused) is not str or fused != "auto"):
        raise PickleError("its fused_scale makes no sense")
    return kernel_of if fused is True or (fused == "auto" and r >= _FUSED) else flipped


def _seen(config: GeneratorConfig | DiscriminatorConfig) -> tuple[int, ...]:
    """The levels at which images come out or go in."""
    return (config.height, config.height // 2) if config.fades else (config.height,)


def _lod_of(level: int, levels: list[int]) -> int:
    return len(levels) - 1 - levels.index(level)


def _lod(weights: dict[str, Loadable], name: str, levels: list[int]) -> float:
    """0 where it is full-grown. Raises PickleError if there is no such level."""
    found = weights.get(name)
    lod = float(found.load()) if found is not None and found.size == () else 0.0
    if not 0 <= lod <= len(levels) - 1:
        raise PickleError("its lod is no level that it has")
    return lod


def _alpha(
    config: GeneratorConfig | DiscriminatorConfig,
    name: str,
    lod: float,
    level: int,
    levels: list[int],
) -> dict[str, Loadable]:
    if not config.fades:
        return {}
    alpha = min(max(1 - (lod - _lod_of(level, levels)), 0.0), 1.0)
    return {name: Made((), lambda size: torch.full(size, alpha))}


def _is_of_growing(name: str) -> bool:
    return re.fullmatch(r"(synthesis/)?(lod|(ToRGB|FromRGB)_lod\d+/(weight|bias))", name) is not None
