"""The residual block that both networks of R3GAN consist of (Huang et al. 2024, section 3.3 and figure 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...layers import PlainConv2d
from ...ops import bias_act, downsample2d, fir_filter, upsample2d
from ..config import Level
from .config import ResidualConfig

LRELU_GAIN = math.sqrt(2 / (1 + 0.2**2))  # of the weights before or after an activation, which has none


class ResidualBlock(nn.Module):
    """x + conv2(lrelu(conv1(lrelu(conv0(x) + bias0)) + bias1)),   conv0 and conv2 1x1, conv1 3x3 in groups

    There is no normalization: conv2 starts at 0, and the others so that the sum of all blocks keeps its variance."""

    def __init__(
        self,
        config: ResidualConfig,
        level: Level,
    ):
        super().__init__()
        channels, wide = level.channels, level.channels * config.expansion
        gain = LRELU_GAIN * config.residual_gain
        self.conv0 = PlainConv2d(channels, wide, 1, gain=gain)
        self.bias0 = nn.Parameter(torch.zeros(wide))
        self.conv1 = PlainConv2d(wide, wide, 3, groups=config.groups(channels), gain=gain)
        self.bias1 = nn.Parameter(torch.zeros(wide))
        self.conv2 = PlainConv2d(wide, channels, 1, gain=0.0)

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
    ) -> Tensor:  # [N, channels, H, W]
        return x + self.conv2(self.inner(x))

    def inner(
        self,
        x: Tensor,  # [N, channels, H, W]
        noise: Tensor | None = None,  # [N or 1, channels * expansion, H, W], added before the second activation
    ) -> Tensor:  # [N, channels * expansion, H, W]
        y = bias_act(self.conv0(x), self.bias0.to(x.dtype), act="lrelu", gain=1)
        y = self.conv1(y) if noise is None else self.conv1(y) + noise
        return bias_act(y, self.bias1.to(x.dtype), act="lrelu", gain=1)


class Resample(nn.Module):
    """A 1x1 convolution if the number of channels changes, then twice or half the size."""

    def __init__(
        self,
        config: ResidualConfig,
        in_channels: int,
        out_channels: int,
        up: int = 1,  # 1 or 2
        down: int = 1,  # 1 or 2
    ):
        super().__init__()
        self.up = up
        options = {"up": up, "down": down, "fir": config.fir}
        self.conv = PlainConv2d(in_channels, out_channels, 1, **options) if in_channels != out_channels else None
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H * up / down, W * up / down]
        if self.conv is not None:
            return self.conv(x)
        return (upsample2d if self.up == 2 else downsample2d)(x, self.resample_filter)


def level_blocks(
    config: ResidualConfig, level: Level, block_class: type[ResidualBlock] = ResidualBlock
) -> nn.Sequential:
    return nn.Sequential(*(block_class(config, level) for _ in range(config.blocks)))
