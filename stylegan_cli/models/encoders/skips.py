"""Features of an encoder in the layers of a generator, which then reproduces what latents cannot say.

The idea is that of GPEN (Yang et al. 2021, "GAN Prior Embedded Network for Blind Face Restoration in the Wild"), with
addition through convolutions that start at zero, which leaves the generator as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import base_size
from ...layers import EqualConv2d
from ..generator import LayerInfo, Noise, Synthesis
from .pyramid import EncoderConfig


class SkipSynthesis(nn.Module):
    """A copy of a synthesis network, to be fine-tuned. At the last layer of each of its levels, a 1x1 convolution of
    the encoder's features of that size is added."""

    def __init__(
        self,
        config: EncoderConfig,
        synthesis: Synthesis,  # of the encoder's generator
    ):
        super().__init__()
        self.synthesis = copy.deepcopy(synthesis)
        lowest, _, _ = base_size(config.height, config.width, 0)
        channels = config.feature_channels
        ends = {row.height - 2 * row.margin: row for row in synthesis.layers if row.kind == "conv"}  # the last of each
        self.rows = tuple(ends.values())
        self.levels = [min(max(round(math.log2(size / lowest)), 0), len(channels) - 1) for size in ends]
        self.convs = nn.ModuleList(
            EqualConv2d(channels[k], row.channels, 1) for k, row in zip(self.levels, self.rows, strict=True)
        )
        for conv in self.convs:
            nn.init.zeros_(conv.weight)  # pyright: ignore[reportArgumentType]

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        features: Sequence[Tensor],  # [N, C, H, W] of the encoder, the lowest level first; none: nothing is added
        noise: Noise = "const",
    ) -> Tensor:  # [N, channels, height, width]
        if not features:
            return self.synthesis(ws, noise)

        def added(conv: nn.Module, row: LayerInfo, y: Tensor):
            return lambda x: x + self._fit(conv(y), row).to(x.dtype)

        parts = zip(self.convs, self.rows, self.levels, strict=True)
        return self.synthesis(ws, noise, features={row.name: added(c, row, features[k]) for c, row, k in parts})

    @staticmethod
    def _fit(y: Tensor, row: LayerInfo) -> Tensor:  # [N, C, H, W]
        """Resize to the size of a layer, and continue beyond the edges of the image."""
        size = row.height - 2 * row.margin, row.width - 2 * row.margin
        if tuple(y.shape[2:]) != size:
            y = F.interpolate(y, size, mode="bilinear", align_corners=False)
        return F.pad(y, [row.margin] * 4, "replicate") if row.margin else y

    def differences(
        self,
        synthesis: Synthesis,  # of the encoder's generator
    ) -> dict[str, Tensor]:
        """The tensors of the state_dict that are not those of the generator."""
        own = {f"synthesis.{name}": t for name, t in synthesis.state_dict().items()}
        return {n: t for n, t in self.state_dict().items() if n not in own or not torch.equal(t, own[n].to(t))}
