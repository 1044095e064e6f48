"""Layers whose weights have their final scale from the start, without equalized learning rate (He et al. 2015).

y = x W^T,   W ~ N(0, gain^2 / fan_in)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import conv2d_resample, fir_filter
from .initial import normal


class PlainLinear(nn.Module):
    weight_gain, lr_multiplier = 1.0, 1.0  # as of `EqualLinear`

    def __init__(
        self,
        in_features: int,
        out_features: int,
        gain: float = 1.0,
        bias: bool = False,
    ):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.weight = nn.Parameter(normal(out_features, in_features, divisor=math.sqrt(in_features), gain=gain))

    def forward(
        self,
        x: Tensor,  # [N, in_features]
    ) -> Tensor:  # [N, out_features]
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class PlainConv2d(nn.Module):
    """In groups of channels, or with a stride, or with optional resampling of a single group."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # an odd one keeps the size, an even one with a stride of 2 halves it; 1 or 3 to resample
        groups: int = 1,
        gain: float = 1.0,
        bias: bool = False,
        stride: int = 1,  # 2 halves the size, without a filter
        up: int = 1,  # 1 or 2
        down: int = 1,  # 1 or 2
        fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),  # resampling filter
    ):
        super().__init__()
        self.groups, self.stride, self.up, self.down = groups, stride, up, down
        shape = (out_channels, in_channels // groups, kernel, kernel)
        self.weight = nn.Parameter(normal(*shape, divisor=math.sqrt(math.prod(shape[1:])), gain=gain))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if max(up, down) > 1:
            self.resample_filter: Tensor
            self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H * up / (down * stride), W * up / (down * stride)]
        w, b = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if self.up == self.down == 1:
            return F.conv2d(x, w, b, self.stride, (w.shape[2] - 1) // 2, groups=self.groups)
        x = conv2d_resample(x, w, self.resample_filter, self.up, self.down)
        return x if b is None else x + b[:, None, None]

    def extra_repr(self) -> str:
        o, i, k, _ = self.weight.shape
        size = f"stride={self.stride}, up={self.up}, down={self.down}"
        return f"{i * self.groups}, {o}, {k}x{k}, groups={self.groups}, {size}"
