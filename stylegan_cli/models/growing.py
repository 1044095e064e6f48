"""Shared by growing networks: while a level fades in, its image is blended with that of the level below.

image = alpha toRGB(x) + (1 - alpha) up(toRGB(x below))    (Karras et al. 2018, figure 2)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..layers import EqualConv2d
from ..ops import fir_filter, upsample2d
from .config import GrowingConfig


class ImageOutput(nn.Module):
    """Converts the features of the highest level to the image; during a fade, those of the two highest levels."""

    def __init__(self, config: GrowingConfig):
        super().__init__()
        levels = config.levels()[-2 if config.fade else -1 :]
        self.names = [level.name for level in levels]
        for level in levels:
            self.add_module(f"torgb{level.name}", EqualConv2d(level.channels, config.channels, 1))
        if config.fade:
            self.alpha: Tensor
            self.resample_filter: Tensor
            self.register_buffer("alpha", torch.ones([]))
            self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)

    def forward(
        self,
        features: Iterable[Tensor],  # [N, C, h, w] of each level, lowest first
    ) -> Tensor:  # [N, channels, H, W] in float32 or float64
        *_, below, x = None, *features
        top = self._image(x, self.names[-1])
        if len(self.names) == 1:
            return top
        below = upsample2d(self._image(below, self.names[0]), self.resample_filter)
        return torch.lerp(below, top, self.alpha.to(top.dtype))

    def _image(self, x: Tensor, name: int) -> Tensor:
        return self.get_submodule(f"torgb{name}")(x.to(torch.promote_types(x.dtype, torch.float32)))


def set_alpha(
    network: nn.Module,
    alpha: float,  # weight of the highest level, 0 to 1
) -> None:
    """Set how far the highest level of a network has faded in. Has no effect on a network without a fade."""
    for name, buffer in network.named_buffers():
        if name.rpartition(".")[2] == "alpha":
            buffer.fill_(alpha)
