"""StyleGAN3's settings in NVIDIA's names, and those that follow from the shapes of a generator's tensors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...errors import SganError
from .config import StyleGAN3Config
from .schedule import signals

# NVIDIA's arguments of the synthesis network -> our fields
_SYNTHESIS = {
    "channel_base": "channel_base",
    "channel_max": "channel_max",
    "num_layers": "num_layers",
    "num_critical": "critical",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stopband",
    "last_stopband_rel": "last_stopband",
    "margin_size": "margin",
    "output_scale": "output_scale",
    "num_fp16_res": "half_levels",
    "conv_kernel": "kernel",
    "filter_size": "filter_size",
    "lrelu_upsampling": "lrelu_upsampling",
    "use_radial_filters": "radial",
    "conv_clamp": "conv_clamp",
}
_MAPPING = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr", "w_avg_beta": "w_avg_beta"}
_OTHERS = {"z_dim": "z_dim", "c_dim": "c_dim", "w_dim": "w_dim", "img_channels": "channels"}
_BATCH = 32  # NVIDIA's decay of the magnitudes is per batch, ours per image: the published batch size is assumed


def arguments_of(
    config: StyleGAN3Config,  # of a square image
) -> dict[str, Any]:
    """The arguments of NVIDIA's Generator. Raises SganError if it does not have the layers."""
    if config.octaves:
        raise SganError("NVIDIA's StyleGAN3 has no layers whose rates double every two layers.")
    names = _OTHERS | _SYNTHESIS
    return {
        "img_resolution": config.height,
        **{argument: getattr(config, field) for argument, field in names.items()},
        "magnitude_ema_beta": 0.5 ** (_BATCH / (1000 * config.magnitude_kimg)),
        "mapping_kwargs": {argument: getattr(config, field) for argument, field in _MAPPING.items()},
    }


def fields_of(
    arguments: dict[str, Any],  # of NVIDIA's Generator or SynthesisNetwork
) -> dict[str, Any]:
    """The fields of our configuration, without NVIDIA's decay of the magnitudes, which depends on a batch size.

    Raises SganError for unknown arguments.
    """
    mapping = arguments.get("mapping_kwargs", {})
    names, fields = _OTHERS | _SYNTHESIS, {}
    known = {*names, "img_resolution", "magnitude_ema_beta", "mapping_kwargs"}
    if not isinstance(mapping, dict):
        raise SganError("Its mapping_kwargs are not a dictionary.")
    if unknown := [*(arguments.keys() - known), *(mapping.keys() - _MAPPING.keys())]:
        raise SganError(f"Its setting {str(unknown[0])[:80]!r} is not supported.")
    if "img_resolution" in arguments:
        fields = {"height": arguments["img_resolution"], "width": arguments["img_resolution"]}
    fields |= {names[argument]: value for argument, value in arguments.items() if argument in names}
    return fields | {_MAPPING[argument]: value for argument, value in mapping.items()}


def infer_channels(
    config: StyleGAN3Config,  # with any channels
    widths: list[int],  # feature maps of all layers but toRGB
) -> StyleGAN3Config:
    """Find a channel base and maximum that give these feature maps; of several bases, the roundest in binary. If there
    are none, the schedule of the result has other layers."""
    maximum = max(widths)
    cutoffs = [signal.cutoff for signal in signals(config)][:-1]
    high = min((2 * f * (width + 0.5) for f, width in zip(cutoffs, widths) if width < maximum), default=math.inf)
    base = maximum * config.level  # if no layer is narrower than the widest
    if high < math.inf:
        steps = [1 << n for n in range(30, -1, -1)]
        bases = (int(high) // step * step for step in steps)
        fits = (b for b in bases if widths == [round(min(b / (2 * f), maximum)) for f in cutoffs])
        base = next(fits, max(int(high), config.level))
    return dataclasses.replace(config, channel_base=base, channel_max=maximum)
