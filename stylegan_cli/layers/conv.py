"""Convolution with equalized learning rate and optional resampling, as in the discriminator.

y = clamp(gain act(resample(conv(x, weight / sqrt(fan_in))) + bias))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import equalized_conv2d, fir_filter
from ..ops.bias_act import ACTIVATIONS
from .initial import normal
from .precision import clamp_for


class EqualConv2d(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # 1 or 3
        act: str = "linear",  # 'linear', 'relu' or 'lrelu'
        bias: bool = True,
        up: int = 1,  # 1 or 2
        down: int = 1,  # 1 or 2
        fir: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),  # resampling filter
        clamp: float | None = None,  # bound on the output
    ):
        super().__init__()
        self.act, self.up, self.down, self.clamp = act, up, down, clamp
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter(fir), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        gain: float = 1.0,  # multiplies the activation's gain and the clamp
    ) -> Tensor:  # [N, out_channels, H * up / down, W * up / down]
        clamp = clamp_for(self.clamp, x.dtype)
        return equalized_conv2d(
            x,
            self.weight,
            self.bias,
            self.resample_filter,
            up=self.up,
            down=self.down,
            act=self.act,
            w_gain=self.weight_gain,
            gain=ACTIVATIONS[self.act].gain * gain,
            clamp=None if clamp is None else clamp * gain,
        )

    def extra_repr(self) -> str:
        o, i, k, _ = self.weight.shape
        return f"{i}, {o}, {k}x{k}, act={self.act}, up={self.up}, down={self.down}"
