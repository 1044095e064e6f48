"""The generators of LAPGAN (Denton et al. 2015, "Deep Generative Image Models using a Laplacian Pyramid of Adversarial
Networks", sections 2.3 and 3.1).

x_0 = G_0(z_0),   x_k = l + G_k(z_k, l),   l = up(x_{k-1})

In the paper z_k is a plane of noise beside the colors of l. Here it is as long at every level, and a linear map makes
the plane, as it makes that of the label there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...layers import PlainConv2d, PlainLinear
from ...ops import fir_filter, upsample2d
from ..chain.network import Chain, Stage
from ..config import Level
from .config import LapganConfig

RELU_GAIN = math.sqrt(2)  # of weights before a ReLU (He et al. 2015)


class LowestStage(Stage):
    """Fully connected, with two hidden layers."""

    def __init__(
        self,
        config: LapganConfig,
        level: Level,
    ):
        super().__init__()
        self.shape = (config.channels, level.height, level.width)
        self.affine = PlainLinear(config.w_dim, config.hidden, RELU_GAIN, bias=True)
        self.dense = PlainLinear(config.hidden, config.hidden, RELU_GAIN, bias=True)
        self.out = PlainLinear(config.hidden, config.channels * level.height * level.width, bias=True)

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        below: Tensor | None,  # None
    ) -> Tensor:  # [N, C, H, W]
        return self.out(F.relu(self.dense(F.relu(self.affine(w))))).unflatten(1, self.shape)

    def style_weight(self) -> Tensor:  # [hidden, w_dim]
        return self.affine.weight


class ResidualStage(Stage):
    """Three convolutions make what an enlarged image lacks."""

    def __init__(
        self,
        config: LapganConfig,
        level: Level,
    ):
        super().__init__()
        planes = 2 if config.c_dim else 1  # one for z, one for the label; w_dim has both
        self.shape = (planes, level.height, level.width)
        self.affine = PlainLinear(config.w_dim, planes * level.height * level.width, bias=True)
        self.conv0 = PlainConv2d(config.channels + planes, level.channels, 7, gain=RELU_GAIN, bias=True)
        self.conv1 = PlainConv2d(level.channels, level.channels, 7, gain=RELU_GAIN, bias=True)
        self.out = PlainConv2d(level.channels, config.channels, 5, gain=RELU_GAIN, bias=True)
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        below: Tensor | None,  # [N, C, H / 2, W / 2]
    ) -> Tensor:  # [N, C, H, W]
        assert below is not None
        low = upsample2d(below, self.resample_filter)
        x = torch.cat([low, self.affine(w).unflatten(1, self.shape)], 1)
        return low + self.out(F.relu(self.conv1(F.relu(self.conv0(x)))))

    def style_weight(self) -> Tensor:  # [planes H W, w_dim]
        return self.affine.weight


def build(config: LapganConfig) -> Chain:
    """Build the generators, for `family.lazy_build`."""
    return Chain(
        config, lambda k, level: ResidualStage(config, level) if k else LowestStage(config, level), uniform=True
    )
