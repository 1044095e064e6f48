"""The layer of pix2pix's networks (Isola et al. 2017, section 6.1): a 4 x 4 convolution, then instance normalization.

y = scale (c - mean(c)) / sigma(c) + shift,   c = conv(x)

The paper normalizes over the batch, of which each image is one: with its batch of 1, this is the same. In larger
batches, no image depends on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .adain import adain
from .initial import normal

_SPREAD = 50.0  # weights start from N(0, 1 / 50) (section 6.2)
_EPS = 1e-5


class NormConv2d(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        up: bool = False,  # transposed, with a stride of 2
        stride: int = 2,  # 1 or 2
        norm: bool = True,  # False: with a bias instead
    ):
        super().__init__()
        self.up, self.stride = up, stride
        shape = (in_channels, out_channels) if up else (out_channels, in_channels)
        self.weight = nn.Parameter(normal(*shape, 4, 4, divisor=_SPREAD))
        self.bias = None if norm else nn.Parameter(torch.zeros(out_channels))
        scale = normal(out_channels, divisor=_SPREAD)
        self.style = nn.Parameter(torch.cat([scale, torch.zeros_like(scale)])) if norm else None  # scale - 1, shift

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, h, w]: half or, upwards, twice the size; with a stride of 1, one pixel less
        convolve = F.conv_transpose2d if self.up else F.conv2d
        x = convolve(x, self.weight, self.bias, stride=2 if self.up else self.stride, padding=1)
        return x if self.style is None else adain(x, self.style.expand(len(x), -1), _EPS)

    def extra_repr(self) -> str:
        i, o = self.weight.shape[:2] if self.up else self.weight.shape[1::-1]
        return f"{i}, {o}, up={self.up}, stride={self.stride}, norm={self.style is not None}"
