"""Fully connected layer with equalized learning rate (Karras et al. 2018, section 4.1).

y = act(x (weight g / sqrt(fan_in))^T + bias g),   g = lr_multiplier
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import bias_act, scaled_linear
from .initial import normal


class EqualLinear(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        act: str = "linear",  # activation, see `bias_act`
        bias: bool = True,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,  # multiplies the optimizer's learning rate
    ):
        super().__init__()
        self.act = act
        self.lr_multiplier = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.weight = nn.Parameter(normal(out_features, in_features, divisor=lr_multiplier))
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier)) if bias else None

    def forward(
        self,
        x: Tensor,  # [N, in_features]
    ) -> Tensor:  # [N, out_features]
        w, b = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if self.act == "linear":
            return scaled_linear(x, w, b, self.weight_gain, self.lr_multiplier)
        x = scaled_linear(x, w, None, self.weight_gain)
        return bias_act(x, b if b is None or self.lr_multiplier == 1 else b * self.lr_multiplier, act=self.act)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, act={self.act}"
