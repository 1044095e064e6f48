"""State dictionaries of NVIDIA's networks: the names of its modules, but no settings, which follow from the shapes.

Settings that no shape decides are those that every program of NVIDIA uses (a learning-rate multiplier of 0.01 in the
mapping network, a group size of 4), or change no value: full precision, without the clamp that half precision needs.
"""

from __future__ import annotations

import re

from ..models.config import LevelsDiscriminatorConfig
from ..models.stylegan2.config import StyleGAN2Config
from ..pickled import PickleError
from .checkpoint import ComputedTensor, Loadable, infer_channels, random_noise, shape_of
from .nvidia import one_filter

_MAX_LEVEL = 1 << 14
NOTE = "The file has no settings; full precision without a clamp, and a mapping_lr of 0.01, were assumed."


def generator_of(
    weights: dict[str, Loadable],
) -> tuple[StyleGAN2Config, dict[str, Loadable], tuple[str, ...]]:  # and notes on what was guessed
    """Raises PickleError and FormatError."""
    weights = {name: t for name, t in weights.items() if name.startswith(("mapping.", "synthesis."))}
    levels = _levels(weights, r"synthesis\.b(\d+)\.conv1\.bias")
    _, h0, w0 = shape_of(weights, "synthesis.b4.const", 3)
    top, notes = max(levels), [NOTE]
    _, inputs = shape_of(weights, "mapping.fc0.weight", 2)
    embedded, c_dim = shape_of(weights, "mapping.embed.weight", 2) if "mapping.embed.weight" in weights else (0, 0)
    has_torgb = "synthesis.b4.torgb.weight" in weights
    w_dim = shape_of(weights, "synthesis.b4.conv1.affine.weight", 2)[1]
    config = StyleGAN2Config(
        h0 * top // 4,
        w0 * top // 4,
        channels=shape_of(weights, f"synthesis.b{top}.torgb.bias", 1)[0],
        z_dim=inputs - embedded,
        c_dim=c_dim,
        w_dim=w_dim,
        mapping_layers=_count(weights, r"mapping\.fc\d+\.bias"),
        architecture="skip" if has_torgb else _architecture(weights, f"synthesis.b{top}.skip.weight"),
        fir=_fir(weights, r"(synthesis\.b\d+\.(conv0|skip))\.resample_filter"),
        half_levels=0,
        conv_clamp=None,
        **infer_channels({r: shape_of(weights, f"synthesis.b{r}.conv1.bias", 1)[0] for r in levels}),
    )
    if "mapping.w_avg" not in weights and not c_dim:
        weights["mapping.w_avg"] = ComputedTensor((w_dim,))
    strengths = re.findall(r"(?m)^(synthesis\.b(\d+)\.conv[01])\.noise_strength$", "\n".join(weights))
    if lacking := [(layer, int(r)) for layer, r in strengths if f"{layer}.noise_const" not in weights]:
        notes.append("The file has no noise; the constant noise was sampled.")
        for layer, r in lacking:
            weights[f"{layer}.noise_const"] = random_noise(layer, (h0 * r // 4, w0 * r // 4))
    return config, _without_filters(weights), tuple(notes)


def discriminator_of(
    weights: dict[str, Loadable],
) -> tuple[LevelsDiscriminatorConfig, dict[str, Loadable]]:
    """Raises PickleError and FormatError."""
    weights = {name: t for name, t in weights.items() if re.match(r"(mapping|b\d+)\.", name)}
    levels = _levels(weights, r"b(\d+)\.conv0\.bias")
    top = max(levels)
    lowest, inputs, *_ = shape_of(weights, "b4.conv.weight", 4)
    widths = {r: shape_of(weights, f"b{r}.conv0.bias", 1)[0] for r in levels}
    is_conditional = "mapping.embed.weight" in weights
    has_fromrgb = "b4.fromrgb.weight" in weights
    config = LevelsDiscriminatorConfig(
        top,
        top,
        channels=shape_of(weights, f"b{top}.fromrgb.weight", 4)[1],
        c_dim=shape_of(weights, "mapping.embed.weight", 2)[1] if is_conditional else 0,
        mapping_layers=_count(weights, r"mapping\.fc\d+\.bias") if is_conditional else 8,
        architecture="skip" if has_fromrgb else _architecture(weights, f"b{top}.skip.weight"),
        fir=_fir(weights, r"(b\d+\.(conv1|skip))\.resample_filter"),
        half_levels=0,
        conv_clamp=None,
        mbstd_channels=inputs - lowest,
        **infer_channels(widths | {4: lowest}),
    )
    return config, _without_filters(weights)


def _levels(weights: dict[str, Loadable], pattern: str) -> list[int]:
    found = [int(match[1]) for name in weights if (match := re.fullmatch(pattern, name[:60]))]
    if len(found) < 1 or max(found) > _MAX_LEVEL:
        raise PickleError("its networks have no levels b4, b8 ...")
    return found


def _count(weights: dict[str, Loadable], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in weights)


def _architecture(weights: dict[str, Loadable], skip_layer: str) -> str:
    return "resnet" if skip_layer in weights else "orig"


def _fir(weights: dict[str, Loadable], pattern: str) -> tuple[float, ...]:
    """The filter of the layers that resample, and NVIDIA's default if the file has none."""
    filters = {match[1]: t for name, t in weights.items() if (match := re.fullmatch(pattern, name))}
    return one_filter(filters) if filters else (1.0, 3.0, 3.0, 1.0)


def _without_filters(weights: dict[str, Loadable]) -> dict[str, Loadable]:
    """The tensors without resampling filters, which follow from the configuration."""
    return {name: t for name, t in weights.items() if not name.endswith("resample_filter")}
