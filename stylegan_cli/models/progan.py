"""The traditional generator (Karras et al. 2018, "Progressive Growing of GANs", table 2): the latent goes in at the
bottom, no styles, no noise. The baseline that styles are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, base_size
from ..layers import EqualConv2d, EqualLinear, normalize_2nd_moment
from ..ops import bias_act
from .generator import MappedGenerator, Synthesis
from .growing import Pictures
from .protocol import LayerInfo, Noise


class LatentToFeatures(nn.Module):
    """x = lrelu(reshape(A w) + bias): from the latent to the lowest level's features."""

    def __init__(
        self,
        w_dim: int,
        channels: int,
        height: int,  # of the lowest level
        width: int,
    ):
        super().__init__()
        self.shape = (channels, height, width)
        self.affine = EqualLinear(w_dim, channels * height * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, height, width]
        x = (self.affine(w) * (math.sqrt(2) / 4)).unflatten(1, self.shape)
        return bias_act(x, self.bias, act="lrelu", gain=1)


class SynthesisNetwork(Synthesis):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config)
        h0, w0, n = base_size(config.height, config.width, 0)
        self.levels = [4 << k for k in range(n + 1)]
        self.half = set(self.levels[1:][::-1][: config.half_levels])  # never the lowest
        width_at = {level: min(config.channel_base // level, config.channel_max) for level in self.levels}
        for level in self.levels:
            block, below = nn.Module(), width_at.get(level // 2)
            if below:
                block.conv0 = EqualConv2d(below, width_at[level], 3, act="lrelu", up=2, fir=config.fir)
            else:
                block.conv0 = LatentToFeatures(config.w_dim, width_at[level], h0, w0)
            block.conv1 = EqualConv2d(width_at[level], width_at[level], 3, act="lrelu")
            self.add_module(f"b{level}", block)
        self.layers = (LayerInfo("synthesis.b4.conv0", "conv", 0, 4, h0, w0, width_at[4], False),)
        self.num_ws = 1
        self.pictures = Pictures(config, width_at)

    def forward(
        self,
        ws: Tensor,  # [N, 1, w_dim]
        noise: Noise = "const",  # it takes none: a name, or an empty list
        dtype: torch.dtype | None = None,  # half precision for the highest levels; None: none
    ) -> Tensor:  # [N, channels, height, width]
        """Raises ValueError if ws or noise do not fit the layer table."""
        self.noise_maps(noise, ws)
        return self.pictures(self._features(*self.latents(ws), dtype))

    def _features(
        self,
        w: Tensor,  # [N, w_dim]
        half: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] of each level, from the lowest on
        x = w
        for level in self.levels:
            block = self.get_submodule(f"b{level}")
            x = x.to(half if half is not None and level in self.half else w.dtype)
            for layer in (block.conv0, block.conv1):
                x = normalize_2nd_moment(layer(x))
            yield x


class ProGAN(MappedGenerator):
    def __init__(self, config: GeneratorConfig):
        super().__init__(config, SynthesisNetwork(config))
