"""The discriminator of DCGAN (Radford et al. 2016, section 3): strided convolutions with batch normalization."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import PlainConv2d
from ..classic.discriminator import ClassicDiscriminator
from .config import DCGANDiscriminatorConfig
from .network import DEVIATION, batch_norm


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
            gain = DEVIATION * math.sqrt(channels * 5**2)
            block.down = PlainConv2d(channels, result.channels, 5, gain=gain, bias=is_first, stride=2)
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
