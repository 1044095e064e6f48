"""The traditional generator (Karras et al. 2018, "Progressive Growing of GANs", table 2), the baseline for style-based
generators: the latent is the input of the lowest level, and there are no styles and no noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...layers import EqualConv2d, EqualLinear, normalize_2nd_moment
from ...ops import bias_act
from ..config import Level
from ..generator import Generator, LayerInfo, Synthesis
from ..growing import ImageOutput
from ..mapping import MappingNetwork
from .config import ProGANConfig


def layer_table(
    config: ProGANConfig,
) -> tuple[LayerInfo, ...]:
    """A single row: the latent controls only the first layer."""
    level = config.levels()[0]
    return (
        LayerInfo("synthesis.b4.conv0", "conv", 0, 0, level.height, level.width, level.channels, False, level.half),
    )


class LatentToFeatures(nn.Module):
    """From the latent to the features of the lowest level: x = lrelu(reshape(A w) + bias)."""

    def __init__(
        self,
        w_dim: int,
        level: Level,
    ):
        super().__init__()
        self.shape = (level.channels, level.height, level.width)
        self.affine = EqualLinear(w_dim, math.prod(self.shape), bias=False)
        self.bias = nn.Parameter(torch.zeros(level.channels))

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, height, width]
        x = (self.affine(w) * (math.sqrt(2) / 4)).unflatten(1, self.shape)
        return bias_act(x, self.bias, act="lrelu", gain=1)


class SynthesisNetwork(Synthesis):
    def __init__(self, config: ProGANConfig):
        super().__init__(layer_table(config), config.w_dim)
        self.levels = config.levels()
        below = None
        for level in self.levels:
            block = nn.Module()
            if below:
                block.conv0 = EqualConv2d(below.channels, level.channels, 3, act="lrelu", up=2, fir=config.fir)
            else:
                block.conv0 = LatentToFeatures(config.w_dim, level)
            block.conv1 = EqualConv2d(level.channels, level.channels, 3, act="lrelu")
            self.add_module(f"b{level.name}", block)
            below = level
        self.pictures = ImageOutput(config)

    def synthesize(
        self,
        ws: Tensor,  # [N, 1, w_dim]
        noise: dict[str, Tensor | None],  # empty
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        return self.pictures(self._features(ws[:, 0], dtype))

    def _features(
        self,
        w: Tensor,  # [N, w_dim]
        half: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] of each level, lowest first
        x = w
        for level in self.levels:
            block = self.get_submodule(f"b{level.name}")
            x = x.to(half if half is not None and level.half else w.dtype)
            for name in ("conv0", "conv1"):
                x = normalize_2nd_moment(block.get_submodule(name)(x))
            yield x


class ProGAN(Generator):
    def __init__(self, config: ProGANConfig):
        synthesis = SynthesisNetwork(config)
        mapping = MappingNetwork(
            config.z_dim, config.c_dim, config.w_dim, 0, 1, labels="concat", w_avg_beta=config.w_avg_beta
        )
        super().__init__(config, synthesis, mapping)


build = ProGAN  # for `family.lazy_build`
