"""StyleGAN generator of 2018 (Karras et al. 2019, "A Style-Based Generator Architecture", figure 1b, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, base_size
from ..layers import EqualLinear, adain
from ..ops import bias_act, blur2d, conv2d_resample, fir_filter
from .generator import MappedGenerator, Synthesis
from .growing import Pictures
from .protocol import LayerInfo, Noise


class StyledConv2d(nn.Module):
    """y = AdaIN(lrelu(blur(conv(up(x))) + strength * noise + bias), A w); the lowest level has one without conv."""

    def __init__(
        self,
        config: GeneratorConfig,
        in_channels: int,  # 0: no convolution
        out_channels: int,
        height: int,  # of the output
        width: int,
        up: int = 1,  # 1, or 2: the input has half the size
    ):
        super().__init__()
        self.up = up
        if in_channels:
            self.weight_gain = math.sqrt(2 / (in_channels * 9))
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        if up == 2:
            self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)
            self.register_buffer("blur_filter", fir_filter(config.blur or [1.0]), persistent=False)
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(height, width))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = EqualLinear(config.w_dim, 2 * out_channels)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        w: Tensor,  # [N, w_dim]
        noise: Tensor | None,  # [N or 1, 1, H, W]; None: no noise
    ) -> Tensor:  # [N, out_channels, H, W]
        if hasattr(self, "weight"):
            w3 = (self.weight * self.weight_gain).to(x.dtype)
            x = conv2d_resample(x, w3, self.resample_filter if self.up == 2 else None, up=self.up)
        if self.up == 2:
            x = blur2d(x, self.blur_filter)
        if noise is not None:
            x = torch.addcmul(x, noise.to(x.dtype), self.noise_strength[:, None, None].to(x.dtype))
        x = bias_act(x, self.bias.to(x.dtype), act="lrelu", gain=1)
        return adain(x, self.affine(w))


class SynthesisNetwork(Synthesis):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config)
        h0, w0, n = base_size(config.height, config.width, 0)
        self.levels = [4 << k for k in range(n + 1)]
        self.half = set(self.levels[1:][::-1][: config.half_levels])  # never the lowest
        width_at = {level: min(config.channel_base // level, config.channel_max) for level in self.levels}
        self.const = nn.Parameter(torch.ones(width_at[4], h0, w0))
        rows = []
        for k, level in enumerate(self.levels):
            size, width, block = (h0 << k, w0 << k), width_at[level], nn.Module()
            block.conv0 = StyledConv2d(config, width_at[level // 2] if k else 0, width, *size, up=2 if k else 1)
            block.conv1 = StyledConv2d(config, width, width, *size)
            self.add_module(f"b{level}", block)
            for i, name in enumerate(("conv0", "conv1"), 2 * k):
                rows.append(LayerInfo(f"synthesis.b{level}.{name}", "conv", i, level, *size, width, True))
        self.layers, self.num_ws = tuple(rows), len(rows)
        self.pictures = Pictures(config, width_at)

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: Noise = "const",  # or one [N or 1, 1, h, w] for each row of the table that takes noise, in order
        dtype: torch.dtype | None = None,  # half precision for the highest levels; None: none
    ) -> Tensor:  # [N, channels, height, width]
        """Raises ValueError if ws or noise do not fit the layer table."""
        latents, maps = iter(self.latents(ws)), iter(self.noise_maps(noise, ws))
        return self.pictures(self._features(ws.shape[0], latents, maps, ws.dtype, dtype))

    def _features(
        self,
        count: int,
        latents: Iterator[Tensor],
        maps: Iterator[Tensor | None],
        full: torch.dtype,
        half: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] of each level, from the lowest on
        x = self.const.expand(count, -1, -1, -1)
        for level in self.levels:
            block = self.get_submodule(f"b{level}")
            x = x.to(half if half is not None and level in self.half else full)
            for layer in (block.conv0, block.conv1):
                x = layer(x, next(latents), next(maps))
            yield x


class StyleGAN(MappedGenerator):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config, SynthesisNetwork(config))
