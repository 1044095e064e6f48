"""The layer schedule of StyleGAN3: rates, cutoffs, sizes and filters of every layer (Karras et al. 2021, section 3.2,
figure 4c). Frequencies are in cycles per side of the nominal resolution, rates in samples per side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...config import base_size
from .config import StyleGAN3Config


@dataclass(frozen=True)
class Signal:
    """The sampling of a feature map."""

    height: int  # in pixels, with the margin
    width: int
    channels: int
    rate: int  # samples per nominal side, a power of 2
    cutoff: float  # frequency up to which the signal is kept
    half_width: float  # of the transition band around the cutoff


@dataclass(frozen=True)
class FilterSpec:
    """A low-pass filter."""

    taps: int
    cutoff: float
    half_width: float  # of the transition band
    rate: int  # sampling rate that it runs at
    radial: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """A layer that turns `source` into `target`: convolution, upsampling, activation, downsampling."""

    name: str
    source: Signal
    target: Signal
    half: bool  # whether it runs in half precision when the caller selects half precision
    kernel: int  # side of the convolution, which pads kernel - 1 zeros on each side
    is_torgb: bool
    up: int
    down: int
    up_filter: FilterSpec | None  # None: no filter
    down_filter: FilterSpec | None
    padding: tuple[int, int, int, int]  # left, right, top, bottom of the upsampled image; negative crops


def signals(config: StyleGAN3Config) -> tuple[Signal, ...]:
    """The outputs of all layers, toRGB's last. That of layer 0 has the sampling of the network's input too."""
    h0, w0, n = base_size(config.height, config.width)
    level, last = 4 << n, config.num_layers
    rows = []
    for i in range(last + 1):
        rate, cutoff, half_width = (_octave if config.octaves else _flexible)(config, i, level)
        margin = config.margin if i < last - 1 else 0
        height, width = (rate * h0 // 4, rate * w0 // 4) if i < last - 1 else (config.height, config.width)
        channels = round(min(config.channel_base / (2 * cutoff), config.channel_max))
        rows.append(
            Signal(
                height + 2 * margin,
                width + 2 * margin,
                config.channels if i == last else channels,
                rate,
                cutoff,
                half_width,
            )
        )
    return tuple(rows)


def _flexible(config: StyleGAN3Config, i: int, level: int) -> tuple[int, float, float]:
    """Rate, cutoff and half width of layer i: cutoff and stopband grow exponentially (section 3.2, "flexible layer
    specifications")."""
    exponent = min(i / (config.num_layers - config.critical), 1)
    cutoff = config.first_cutoff * (level / 2 / config.first_cutoff) ** exponent
    stopband = config.first_stopband * (level / 2 * config.last_stopband / config.first_stopband) ** exponent
    rate = 2 ** math.ceil(math.log2(min(2 * stopband, level)))
    return rate, cutoff, max(stopband, rate / 2) - cutoff


def _octave(config: StyleGAN3Config, i: int, level: int) -> tuple[int, float, float]:
    """Rate, cutoff and half width of layer i in the steps of StyleGAN2 (section 3.2, configurations E to H)."""
    rate = min(4 << (i + 1) // 2, level)
    half_width = (math.sqrt(2) - 1) * rate / 2
    is_critical = i >= config.num_layers - config.critical
    return rate, rate / 2 - (0 if is_critical else half_width), half_width


def layer_specs(config: StyleGAN3Config) -> tuple[LayerSpec, ...]:
    """All layers in order, toRGB last."""
    targets = signals(config)
    level = 4 << base_size(config.height, config.width)[2]
    specs = []
    for i, (source, target) in enumerate(zip((targets[0], *targets), targets)):
        is_torgb = i == config.num_layers
        kernel = 1 if is_torgb else config.kernel
        rate = max(source.rate, target.rate) * (1 if is_torgb else config.lrelu_upsampling)
        up, down = rate // source.rate, rate // target.rate
        radial = config.radial and i < config.num_layers - config.critical
        up_filter = down_filter = None
        if up > 1:
            up_filter = FilterSpec(config.filter_size * up, source.cutoff, source.half_width, rate)
        if down > 1:
            down_filter = FilterSpec(config.filter_size * down, target.cutoff, target.half_width, rate, radial)
        extra = sum(f.taps - 1 for f in (up_filter, down_filter) if f)

        specs.append(
            LayerSpec(
                f"L{i}_{_size(target)}_{target.channels}",
                source,
                target,
                target.rate << config.half_levels > level,
                kernel,
                is_torgb,
                up,
                down,
                up_filter,
                down_filter,
                (
                    *_padding(source.width, target.width, kernel, up, down, extra),
                    *_padding(source.height, target.height, kernel, up, down, extra),
                ),
            )
        )
    return tuple(specs)


def _padding(source: int, target: int, kernel: int, up: int, down: int, extra: int) -> tuple[int, int]:
    """Before and after an axis, so that its size becomes `target`; `extra` samples are lost to the filters."""
    total = (target - 1) * down + 1 - (source + kernel - 1) * up + extra
    low = (total + up) // 2  # rounds down, also below zero
    return low, total - low


def _size(signal: Signal) -> str:
    return f"{signal.height}" if signal.height == signal.width else f"{signal.height}x{signal.width}"
