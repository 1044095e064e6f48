"""The discriminators of StackGAN (Zhang et al. 2017, sections 3.3 and 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import PlainLinear
from ..chain.network import ChainDiscriminator, StageDiscriminator
from ..config import Level
from .config import StackganDiscriminatorConfig
from .network import Block, conv


class StackDiscriminator(StageDiscriminator):
    """Halves the image until level 4, where a 1 x 1 convolution joins its features with the compressed label."""

    def __init__(
        self,
        config: StackganDiscriminatorConfig,
        k: int,  # number of the stage
        level: Level,
    ):
        super().__init__(config, level)
        # Each stage has the channels of the other one, at levels as far below its image.
        levels = config.stage_levels(k, config.enlarge**k)[::-1]
        self.blocks = nn.ModuleList()
        channels = config.channels
        for lower in levels[1:]:
            first = nn.Sequential(conv(channels, lower.channels, 4, 2, bias=True), nn.LeakyReLU(0.2))
            self.blocks.append(Block(channels, lower.channels, 4, 2, slope=0.2) if len(self.blocks) else first)
            channels = lower.channels
        if config.c_dim:
            self.embed = PlainLinear(config.c_dim, config.condition, bias=True)
            self.join = Block(channels + config.condition, channels, 1, slope=0.2)
        lowest = levels[-1]
        self.out = PlainLinear(channels * lowest.height * lowest.width, 1, bias=True)
        names = [f"blocks.{i}" for i in range(len(self.blocks))]
        self.layers = (*names, *(("embed", "join") if config.c_dim else ()), "out")

    def hidden(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
        c: Tensor | None,  # [N, c_dim]
    ) -> list[Tensor]:  # [N, C, h, w] after each block
        found, x = [], image
        for block in self.blocks:
            x = block(x)
            found.append(x)
        if c is not None:
            condition = F.leaky_relu(self.embed(c), 0.2)[:, :, None, None].expand(-1, -1, *x.shape[2:])
            found.append(self.join(torch.cat([x, condition], 1)))
        return found


def build(config: StackganDiscriminatorConfig) -> ChainDiscriminator:
    """Build the discriminators, for `family.lazy_build`."""
    return ChainDiscriminator(config, lambda k, level: StackDiscriminator(config, k, level))
