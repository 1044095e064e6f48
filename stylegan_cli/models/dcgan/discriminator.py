"""The discriminator of DCGAN (Radford et al. 2016, section 3): strided convolutions with batch normalization."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.initial import normal
from ..classic.discriminator import ClassicDiscriminator
from .config import DCGANDiscriminatorConfig
from .network import DEVIATION, batch_norm


class Down(nn.Module):
    """A 5x5 convolution with stride 2."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool,
    ):
        super().__init__()
        self.weight = nn.Parameter(normal(out_channels, in_channels, 5, 5, gain=DEVIATION))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H / 2, W / 2]
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, stride=2, padding=2)


class DCGANDiscriminator(ClassicDiscriminator):
    config: DCGANDiscriminatorConfig

    def __init__(self, config: DCGANDiscriminatorConfig):
        levels = config.levels()[::-1]  # from that of the image
        lowest = levels[-1]
        super().__init__(config, lowest.channels * lowest.height * lowest.width, spectral=False)
        if not self.out.weight.is_meta:
            nn.init.normal_(self.out.weight, 0, DEVIATION)
        channels, names, self.halves = config.channels, [], []
        for level, result in zip(levels, levels[1:]):
            block, is_first = nn.Module(), level is levels[0]
            block.down = Down(channels, result.channels, bias=is_first)
            if not is_first:
                block.norm = batch_norm(result.channels)
            channels = result.channels
            self.add_module(f"b{level.name}", block)
            names.append(f"b{level.name}")
            self.halves.append(level.half)
        self.layers = (*names, "out")

    def levels_of(
        self,
        image: Tensor,  # [N, channels, height, width]
        dtype: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] after each block
        x = image
        for k, (name, half) in enumerate(zip(self.layers[:-1], self.halves, strict=True)):
            x = self.get_submodule(f"{name}.down")(x.to(dtype if dtype is not None and half else image.dtype))
            x = F.leaky_relu(self.get_submodule(f"{name}.norm")(x) if k else x, 0.2)
            yield x

    def pooled(
        self,
        x: Tensor,  # [N, C, h, w] after the last block
    ) -> Tensor:  # [N, C h w]
        return x.flatten(1)


build = DCGANDiscriminator  # for `family.lazy_build`
