"""The discriminator of R3GAN (Huang et al. 2024): the generator's blocks in reverse order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import PlainConv2d, PlainLinear
from ...layers.initial import normal
from ..config import Level
from ..discriminator import Discriminator
from .blocks import Resample, level_blocks
from .config import R3GANDiscriminatorConfig


class Head(nn.Module):
    """From the features of the lowest level to the outputs: A (sum over pixels of maps * x), with learned maps."""

    def __init__(
        self,
        level: Level,
        out_features: int,
    ):
        super().__init__()
        shape = (level.channels, 1, level.height, level.width)
        self.maps = nn.Parameter(normal(*shape, divisor=math.sqrt(level.height * level.width)))
        self.linear = PlainLinear(level.channels, out_features)

    def forward(
        self,
        x: Tensor,  # [N, channels, h0, w0]
    ) -> Tensor:  # [N, out_features]
        return self.linear((x * self.maps[:, 0].to(x.dtype)).sum([2, 3]))


class R3GANDiscriminator(Discriminator):
    config: R3GANDiscriminatorConfig

    def __init__(self, config: R3GANDiscriminatorConfig):
        super().__init__(config)
        lowest, *above = config.levels()
        self.levels = [*above[::-1], lowest]  # from that of the image
        self.fromrgb = PlainConv2d(config.channels, self.levels[0].channels, 1)
        for level, below in zip(self.levels, [*self.levels[1:], None]):
            block = nn.Module()
            block.blocks = level_blocks(config, level)
            if below:
                block.resample = Resample(config, level.channels, below.channels, down=2)
            self.add_module(f"b{level.name}", block)
        by_label = {"projection": lowest.channels, "classifier": 1 + config.c_dim}
        self.outputs = by_label[config.labels] if config.c_dim else 1
        self.head = Head(lowest, self.outputs + config.codes)
        if config.c_dim and config.labels == "projection":
            self.embed = PlainLinear(config.c_dim, lowest.channels, gain=1 / math.sqrt(lowest.channels))
        parts = [f"b{level.name}.{name}" for level in self.levels for name in ("blocks", "resample")]
        self.layers = ("fromrgb", *parts[:-1], "head")

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim] one-hot; not needed with labels 'classifier'
        dtype: torch.dtype | None = None,  # half precision type for the highest levels; None: full precision
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; [N, c_dim + codes] predictions, None if there are none
        *_, x = self._blocks(image, dtype)
        x, codes = self.head(x.to(image.dtype)).split([self.outputs, self.config.codes], 1)
        if self.config.c_dim and self.config.labels == "projection":
            x = (x * self.embed(self.require_labels(c))).sum(1, keepdim=True)
        predictions = torch.cat([x[:, 1:], codes], 1)
        return x[:, :1], predictions if predictions.shape[1] else None

    def features(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, h, w]: the colors, then each level
        self.check_image(image)
        # The levels say little about colors. Distances are relative to the features, which a constant keeps from 0.
        return [F.pad(image, (0, 0, 0, 0, 0, 1), value=0.5), *self._blocks(image, None)]

    def _blocks(self, image: Tensor, dtype: torch.dtype | None) -> Iterator[Tensor]:
        self.check_image(image)
        x = self.fromrgb(image.to(dtype if dtype is not None and self.levels[0].half else image.dtype))
        for level in self.levels:
            x = x.to(dtype if dtype is not None and level.half else image.dtype)
            x = self.get_submodule(f"b{level.name}.blocks")(x)
            yield x
            if level is not self.levels[-1]:
                x = self.get_submodule(f"b{level.name}.resample")(x)


build = R3GANDiscriminator  # for `family.lazy_build`
