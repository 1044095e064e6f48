"""StyleGAN3 generator (Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3, appendix B, F)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...layers import EqualLinear
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


class FourierInput(nn.Module):
    """x = W a sin(2 pi (f p + phi)) / sqrt(C) at every pixel p, with frequencies f and phases phi that a latent rotates
    and moves (Karras et al. 2021, section 3.1, appendix F.1)."""

    def __init__(
        self,
        signal: Signal,
        w_dim: int,
        sides: tuple[float, float],  # width and height of the image in sides of the nominal resolution
        moves: bool = True,  # whether w moves the waves; else only a transform does
    ):
        super().__init__()
        self.signal, self.sides, self.moves = signal, sides, moves
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("freqs", _frequencies(signal))
        self.register_buffer("phases", torch.empty(signal.channels).uniform_(-0.5, 0.5))
        self.weight = nn.Parameter(normal(signal.channels, signal.channels))
        self.affine = EqualLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            assert self.affine.bias is not None
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        transform: Tensor | None,  # [3, 3] or [N, 3, 3], inverse of the image's motion in image widths; None: identity
    ) -> Tensor:  # [N, C, height, width]
        m = self._motion(w)
        m = m if transform is None else m @ self._in_nominal_sides(transform.to(m))
        freqs = self.freqs @ m[:, :2, :2]  # [N, C, 2]
        phases = self.phases + m[:, :2, 2] @ self.freqs.t()  # [N, C]
        s = self.signal
        # Frequencies that a transform moves out of the band fade out.
        fade = 1 - (freqs.norm(dim=2) - s.cutoff) / max(s.rate / 2 - s.cutoff, 1e-6)
        amplitudes = fade.clamp(0, 1)  # [N, C]
        x, y = (self._positions(n, m) for n in (s.width, s.height))
        cycles = freqs[:, None, None, :, 0] * x[:, None] + freqs[:, None, None, :, 1] * y[:, None, None]
        waves = (2 * math.pi * (cycles + phases[:, None, None])).sin() * amplitudes[:, None, None]  # [N, H, W, C]
        mixed = waves @ (self.weight / math.sqrt(s.channels)).t()
        return mixed.permute(0, 3, 1, 2)

    def _motion(self, w: Tensor) -> Tensor:  # [N, 3, 3]
        """The rotation and translation of the latents: rotate(r) translate(-t)."""
        if not self.moves:
            return torch.eye(3, dtype=w.dtype, device=w.device).expand(w.shape[0], 3, 3)
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rows = (cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y, zero, zero, one)
        return torch.stack(rows, 1).reshape(-1, 3, 3)

    def _in_nominal_sides(self, transform: Tensor) -> Tensor:  # [3, 3] or [N, 3, 3]
        """The transform with a translation in sides of the nominal resolution instead of image widths and heights."""
        return transform * transform.new_tensor([[1, 1, self.sides[0]], [1, 1, self.sides[1]], [1, 1, 1]])

    def _positions(self, count: int, like: Tensor) -> Tensor:  # [count], in widths of the nominal image
        i = torch.arange(count, device=like.device, dtype=like.dtype)
        return (i + (0.5 - count / 2)) / self.signal.rate


def _frequencies(signal: Signal) -> Tensor:  # [C, 2]
    """Uniform over the disc of the band: the radius of a normal vector has the distribution 1 - exp(-r^2 / 2)."""
    direction = normal(signal.channels, 2)
    if direction.is_meta:
        return direction
    radius = direction.norm(dim=1, keepdim=True)
    return direction / radius * (-radius.square() / 4).exp() * signal.cutoff


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
        sides = config.width / config.level, config.height / config.level
        self.input = FourierInput(signals(config)[0], config.w_dim, sides, config.moves)
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
