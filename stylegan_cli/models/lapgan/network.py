"""The generators of LAPGAN (Denton et al. 2015, "Deep Generative Image Models using a Laplacian Pyramid of Adversarial
Networks", sections 2.3 and 3.1).

x_0 = G_0(z_0),   x_k = l + G_k(z_k, l),   l = up(x_{k-1})

In the paper z_k is a plane of noise beside the colors of l. Here it is as long at every level, and a linear map makes
the plane, as it makes that of the label there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...layers import SpectralLinear
from ...ops import fir_filter, upsample2d
from ..chain.network import Chain, ChainMapping, ChainSynthesis, Conv, Stage
from ..config import Level
from .config import LapganConfig


class LowestStage(Stage):
    """Fully connected, with two hidden layers."""

    def __init__(
        self,
        config: LapganConfig,
        level: Level,
    ):
        super().__init__()
        self.shape = (config.channels, level.height, level.width)
        self.affine = SpectralLinear(config.w_dim, config.hidden, spectral=False)
        self.dense = SpectralLinear(config.hidden, config.hidden, spectral=False)
        self.out = SpectralLinear(config.hidden, config.channels * level.height * level.width, spectral=False)

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
        self.affine = SpectralLinear(config.w_dim, planes * level.height * level.width, spectral=False)
        self.conv0 = Conv(config.channels + planes, level.channels, 7)
        self.conv1 = Conv(level.channels, level.channels, 7)
        self.out = Conv(level.channels, config.channels, 5)
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


class Lapgan(Chain):
    def __init__(self, config: LapganConfig):
        def make_stage(k: int, level: Level) -> Stage:
            return ResidualStage(config, level) if k else LowestStage(config, level)

        super().__init__(config, ChainSynthesis(config, make_stage), ChainMapping(config, uniform=True))


build = Lapgan  # for `family.lazy_build`
