"""The discriminators of LAPGAN (Denton et al. 2015, sections 2.3 and 3.1). That of a level sees h + l, the sum of a
residual and the enlarged image below. The paper also has dropout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...layers import PlainConv2d, PlainLinear
from ..chain.network import ChainDiscriminator, StageDiscriminator
from ..config import Level
from .config import LapganDiscriminatorConfig
from .network import RELU_GAIN


class LowestDiscriminator(StageDiscriminator):
    """Fully connected, with two hidden layers."""

    layers = ("dense0", "dense1", "out")

    def __init__(
        self,
        config: LapganDiscriminatorConfig,
        level: Level,
    ):
        super().__init__(config, level)
        numbers = config.channels * level.height * level.width + config.c_dim
        self.dense0 = PlainLinear(numbers, config.hidden, RELU_GAIN, bias=True)
        self.dense1 = PlainLinear(config.hidden, config.hidden, RELU_GAIN, bias=True)
        self.out = PlainLinear(config.hidden, 1, bias=True)

    def hidden(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
        c: Tensor | None,  # [N, c_dim]
    ) -> list[Tensor]:  # [N, hidden, 1, 1] each
        x = image.flatten(1) if c is None else torch.cat([image.flatten(1), c], 1)
        x0 = F.relu(self.dense0(x))
        return [x0[:, :, None, None], F.relu(self.dense1(x0))[:, :, None, None]]


class ConvDiscriminator(StageDiscriminator):
    """Two convolutions; a linear map makes a plane of the label."""

    layers = ("conv0", "conv1", "out")

    def __init__(
        self,
        config: LapganDiscriminatorConfig,
        level: Level,
    ):
        super().__init__(config, level)
        size = level.height * level.width
        self.plane = PlainLinear(config.c_dim, size) if config.c_dim else None
        self.conv0 = PlainConv2d(config.channels + (config.c_dim > 0), level.channels, 5, gain=RELU_GAIN, bias=True)
        self.conv1 = PlainConv2d(level.channels, level.channels, 5, gain=RELU_GAIN, bias=True, stride=2)
        self.out = PlainLinear(level.channels * size // 4, 1, bias=True)

    def hidden(
        self,
        image: Tensor,  # [N, channels, H, W] in [-1, 1]
        c: Tensor | None,  # [N, c_dim]
    ) -> list[Tensor]:  # [N, C, H, W], [N, C, H / 2, W / 2]
        if c is not None and self.plane is not None:
            image = torch.cat([image, self.plane(c).unflatten(1, (1, *image.shape[2:]))], 1)
        x0 = F.relu(self.conv0(image))
        return [x0, F.relu(self.conv1(x0))]


def build(config: LapganDiscriminatorConfig) -> ChainDiscriminator:
    """Build the discriminators, for `family.lazy_build`."""
    return ChainDiscriminator(
        config, lambda k, level: ConvDiscriminator(config, level) if k else LowestDiscriminator(config, level)
    )
