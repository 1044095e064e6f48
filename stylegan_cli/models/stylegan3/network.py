"""StyleGAN3 generator (Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3, appendix B, F)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...layers import EqualLinear, FourierInput
from ...layers.initial import normal
from ...layers.precision import clamp_for
from ...layers.statistics import RunningMean
from ...ops import filtered_lrelu, lowpass_filter, modulated_conv2d
from ..generator import Generator, LayerInfo, Synthesis
from ..mapping import MappingNetwork
from .config import StyleGAN3Config
from .schedule import FilterSpec, LayerSpec, Signal, layer_specs, signals


def layer_table(
    config: StyleGAN3Config,
) -> tuple[LayerInfo, ...]:
    """The input, which a latent rotates and moves, and the layers of the schedule. Each has a w of its own."""
    first, specs = signals(config)[0], layer_specs(config)
    rates = sorted({spec.target.rate for spec in specs})
    size = (first.height, first.width, first.channels)
    margin = _margin(config, first)
    rows = [LayerInfo("synthesis.input", "input", 0, 0, *size, False, False, first.cutoff, margin)]
    for i, spec in enumerate(specs, 1):
        signal = spec.target
        rows.append(
            LayerInfo(
                f"synthesis.{spec.name}",
                "torgb" if spec.is_torgb else "conv",
                i,
                rates.index(signal.rate),
                signal.height,
                signal.width,
                signal.channels,
                False,
                spec.half,
                signal.cutoff,
                _margin(config, signal),
            )
        )
    return tuple(rows)


def _margin(config: StyleGAN3Config, signal: Signal) -> int:
    return (signal.height - signal.rate * config.height // config.level) // 2


class Layer(RunningMean):
    """y = down(lrelu(up(demod(conv(style * x)) / sqrt(E[x^2]) + b))); toRGB: y = conv(style * x) / sqrt(E[x^2]) + b
    (Karras et al. 2021, section 3.2, appendix B, F.2)."""

    def __init__(
        self,
        config: StyleGAN3Config,
        spec: LayerSpec,
    ):
        super().__init__()
        self.spec, self.clamp, self.halflife = spec, config.conv_clamp, 1000 * config.magnitude_kimg
        inputs, outputs = spec.source.channels, spec.target.channels
        self.affine = EqualLinear(config.w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(normal(outputs, inputs, spec.kernel, spec.kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.magnitude_ema: Tensor
        self.up_filter: Tensor | None
        self.down_filter: Tensor | None
        self.register_buffer("magnitude_ema", torch.ones([]))  # E[x^2]
        with torch.device("cpu"):  # not 'meta', on which networks are built to be loaded: files have no filters
            self.register_buffer("up_filter", _filter(spec.up_filter), persistent=False)
            self.register_buffer("down_filter", _filter(spec.down_filter), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, in_height, in_width]
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, out_channels, height, width]
        if self.collecting:
            self.collect(x.detach().to(self.magnitude_ema.dtype).square().mean(dim=[1, 2, 3]))
        spec, style, scale = self.spec, self.affine(w), self.magnitude_ema.rsqrt()
        clamp = clamp_for(self.clamp, x.dtype)
        if spec.is_torgb:
            style = style * (scale / math.sqrt(spec.source.channels))
            return modulated_conv2d(x, self.weight, style, demodulate=False, b=self.bias, clamp=clamp)
        # Demodulation cancels both norms; with them eps has the same effect at every width.
        weight = self.weight * self.weight.square().mean(dim=[1, 2, 3], keepdim=True).rsqrt()
        style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
        y = modulated_conv2d(x, weight, style, scale=scale, padding=spec.kernel - 1)
        return filtered_lrelu(
            y,
            self.bias.to(y.dtype),
            self.up_filter,
            self.down_filter,
            up=spec.up,
            down=spec.down,
            padding=spec.padding,
            clamp=clamp,
        )

    def _update(
        self,
        mean: Tensor,  # [] mean of x^2 over a batch
        count: int,
    ) -> None:
        mean = mean.to(self.magnitude_ema.dtype)
        decay = 0.5 ** (count / self.halflife)
        self.magnitude_ema.lerp_(torch.where(mean.isfinite(), mean, self.magnitude_ema), 1 - decay)


def _filter(spec: FilterSpec | None) -> Tensor | None:  # [taps] or [taps, taps]
    if spec is None:
        return None
    return lowpass_filter(spec.taps, spec.cutoff, spec.half_width, spec.rate, spec.radial)


class SynthesisNetwork(Synthesis):
    def __init__(self, config: StyleGAN3Config):
        super().__init__(layer_table(config), config.w_dim)
        self.output_scale = config.output_scale
        first, sides = signals(config)[0], (config.width / config.level, config.height / config.level)
        size = first.channels, first.height, first.width
        self.input = FourierInput(*size, first.rate, first.cutoff, sides, config.w_dim, config.moves)
        for spec in layer_specs(config):
            self.add_module(spec.name, Layer(config, spec))

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # empty
        dtype: torch.dtype | None,
        transform: Tensor | None,  # [3, 3] or [N, 3, 3], inverse of the image's motion in image widths
    ) -> Tensor:  # [N, channels, height, width]
        x = self.input(ws[:, 0], transform)
        for row in self.layers[1:]:
            x = x.to(dtype if dtype is not None and row.half else ws.dtype)
            x = self.get_submodule(row.path)(x, ws[:, row.w_index])
        x = x * self.output_scale
        return x.to(torch.promote_types(x.dtype, torch.float32))


class StyleGAN3(Generator):
    def __init__(self, config: StyleGAN3Config):
        synthesis = SynthesisNetwork(config)
        super().__init__(config, synthesis, MappingNetwork.of(config, synthesis.num_ws))


build = StyleGAN3  # for `family.lazy_build`
