"""Layers whose weights have their final scale from the start, without equalized learning rate (He et al. 2015).

y = x W^T,   W ~ N(0, gain^2 / fan_in)
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import conv2d_resample, fir_filter
from .initial import normal


class PlainLinear(nn.Module):
    """Without bias."""

    weight_gain, lr_multiplier, bias = 1.0, 1.0, None  # as of `EqualLinear`

    def __init__(
        self,
        in_features: int,
        out_features: int,
        gain: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(normal(out_features, in_features, divisor=math.sqrt(in_features), gain=gain))

    def forward(
        self,
        x: Tensor,  # [N, in_features]
    ) -> Tensor:  # [N, out_features]
        return x @ self.weight.t().to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class PlainConv2d(nn.Module):
    """Without bias, in groups of channels, with optional resampling of a layer with a single group."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # 1 or 3
        groups: int = 1,
        gain: float = 1.0,
        up: int = 1,  # 1 or 2
        down: int = 1,  # 1 or 2
        fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),  # resampling filter
    ):
        super().__init__()
        self.groups, self.up, self.down = groups, up, down
        shape = (out_channels, in_channels // groups, kernel, kernel)
        self.weight = nn.Parameter(normal(*shape, divisor=math.sqrt(math.prod(shape[1:])), gain=gain))
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H * up / down, W * up / down]
        w = self.weight.to(x.dtype)
        if self.groups > 1:
            return F.conv2d(x, w, padding=w.shape[2] // 2, groups=self.groups)
        return conv2d_resample(x, w, self.resample_filter, self.up, self.down)

    def extra_repr(self) -> str:
        o, i, k, _ = self.weight.shape
        return f"{i * self.groups}, {o}, {k}x{k}, groups={self.groups}, up={self.up}, down={self.down}"
