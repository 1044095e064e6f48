"""The networks of pix2pix (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks").

UNet                 halves the input down to the bottleneck and doubles it again; at each size, the features of the way
                     down are concatenated to those of the way up (section 6.1.1)
PatchDiscriminator   a logit for each patch of an image beside the input that it belongs to (section 6.1.2)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import check_choice
from ...errors import SganError
from ...layers import NormConv2d
from ..config import ImageConfig

_MOST, _FEWEST = 8, 3  # halvings: 8 make one pixel of 256
_WIDEST = 8  # feature maps at most, in multiples of those of the first layer
_DROPOUT = 3  # layers with dropout: the first ones of the way up
_SLOPE = 0.2  # of the leaky ReLU on the way down and in the discriminator


@dataclass(frozen=True)
class TranslatorConfig(ImageConfig):
    """A U-net and its discriminator."""

    inputs: int = 3  # channels of the image to translate from
    base: int = 64  # feature maps of the first layer of either network

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("The number of channels of the source", self.inputs, (1, 3, 4))
        self._check(1 <= self.base <= 4096, "base")
        self._check(min(self.height, self.width) >= 1 and max(self.height, self.width) <= 2**16, "the size")
        if self.halvings < _FEWEST or min(self.height, self.width) < 16:
            raise SganError(
                f"pix2pix cannot translate images of {self.height}x{self.width} (height x width): it halves them at "
                f"least {_FEWEST} times.",
                hint="Use images whose sides are multiples of 8, better powers of 2, and at least 16 pixels: "
                "sgan data pack --size.",
            )

    @property
    def halvings(self) -> int:
        """Layers on the way down: as long as both sides are even."""
        return next(k for k in range(_MOST + 1) if k == _MOST or (self.height | self.width) >> k & 1)

    @property
    def widths(self) -> list[int]:
        """Feature maps of each layer on the way down."""
        return [self.base * min(2**k, _WIDEST) for k in range(self.halvings)]

    @property
    def strided(self) -> int:
        """Layers of the discriminator that halve: 3 for images from 256 pixels on, as in the paper; 2 from 128 on, else
        1, so that a patch remains about a quarter of the image."""
        return min(max((min(self.height, self.width) >> 6).bit_length(), 1), 3)

    @property
    def patch(self) -> int:
        """The receptive field of a logit in pixels: 16, 34 or 70."""
        field = 4 + 3
        for _ in range(self.strided):
            field = 2 * field + 2
        return field


class UNet(nn.Module):
    """Its only noise is dropout, in training and afterwards (Isola et al. 2017, section 3.1)."""

    def __init__(self, config: TranslatorConfig):
        super().__init__()
        self.config, widths = config, config.widths
        pixels = (config.height >> len(widths)) * (config.width >> len(widths))  # of the bottleneck
        last = len(widths) - 1
        down = zip([config.inputs, *widths], widths)
        # Normalization would leave nothing of one pixel; nor is the first layer normalized.
        self.down = nn.ModuleList(
            NormConv2d(i, o, norm=k > 0 and (k < last or pixels >= 4)) for k, (i, o) in enumerate(down)
        )
        inputs = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]
        outputs = [*reversed(widths[:-1]), config.channels]
        up = zip(inputs, outputs, strict=True)
        self.up = nn.ModuleList(NormConv2d(i, o, up=True, norm=k < last) for k, (i, o) in enumerate(up))

    @property
    def dropout_shapes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of the features that dropout is applied to."""
        config, n = self.config, len(self.up)
        layers = range(min(_DROPOUT, n - 1))
        return [(config.widths[n - 2 - k], config.height >> n - 1 - k, config.width >> n - 1 - k) for k in layers]

    def forward(
        self,
        x: Tensor,  # [N, inputs, H, W] in [-1, 1]
        kept: Sequence[Tensor] | None = None,  # of `dropout_shapes`, [N, C, h, w]: factors 0 or 2; None: no dropout
    ) -> Tensor:  # [N, channels, H, W] in [-1, 1]
        features: list[Tensor] = []
        for k, layer in enumerate(self.down):
            x = layer(F.leaky_relu(x, _SLOPE) if k else x)
            features.append(x)
        for k, layer in enumerate(self.up):
            x = layer(F.relu(torch.cat([x, features[-1 - k]], 1) if k else x))
            if kept is not None and k < len(kept):
                x = x * kept[k]
        return x.tanh()


class PatchDiscriminator(nn.Module):
    def __init__(self, config: TranslatorConfig):
        super().__init__()
        n, base = config.strided, config.base
        widths = [config.inputs + config.channels, *(base * min(2**k, _WIDEST) for k in range(n + 1))]
        pairs = enumerate(itertools.pairwise(widths))
        self.layers = nn.ModuleList(NormConv2d(i, o, stride=2 if k < n else 1, norm=k > 0) for k, (i, o) in pairs)
        self.layers.append(NormConv2d(widths[-1], 1, stride=1, norm=False))

    def forward(
        self,
        source: Tensor,  # [N, inputs, H, W] in [-1, 1]
        images: Tensor,  # [N, channels, H, W]
    ) -> Tensor:  # [N, 1, h, w] logits
        x = torch.cat([source, images], 1)
        for k, layer in enumerate(self.layers):
            x = layer(F.leaky_relu(x, _SLOPE) if k else x)
        return x
