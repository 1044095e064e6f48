"""The generator of DCGAN (Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", figure 1): transposed convolutions with batch normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import BatchNorm
from ...layers.initial import normal
from ..classic.residual import Dense
from ..generator import Generator, LayerInfo, Synthesis
from ..mapping import DirectMapping
from .config import DCGANConfig

DEVIATION = 0.02  # of initial weights and of the gains of batch normalization


class Up(nn.Module):
    """A transposed 5x5 convolution with stride 2 ("fractionally-strided")."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool,
    ):
        super().__init__()
        self.weight = nn.Parameter(normal(in_channels, out_channels, 5, 5, gain=DEVIATION))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, 2 H, 2 W]
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv_transpose2d(x, self.weight.to(x.dtype), bias, stride=2, padding=2, output_padding=1)


def batch_norm(channels: int) -> BatchNorm:
    norm = BatchNorm(channels)
    assert norm.gain is not None
    if not norm.gain.is_meta:
        nn.init.normal_(norm.gain, 0, DEVIATION)
    return norm


class SynthesisNetwork(Synthesis):
    can_freeze = False

    def __init__(self, config: DCGANConfig):
        self.levels = levels = config.levels()
        at = levels[0]
        row = LayerInfo("synthesis.dense", "conv", 0, 0, at.height, at.width, at.channels, False, False)
        super().__init__([row], config.w_dim)
        self.dense = Dense(config.w_dim, at, bias=False)
        if not self.dense.affine.weight.is_meta:
            nn.init.normal_(self.dense.affine.weight, 0, DEVIATION)
        self.norm = batch_norm(at.channels)
        for below, level in zip(levels, levels[1:]):
            block = nn.Module()
            is_last = level is levels[-1]
            block.up = Up(below.channels, config.channels if is_last else level.channels, bias=is_last)
            if not is_last:
                block.norm = batch_norm(level.channels)
            self.add_module(f"b{level.name}", block)

    def synthesize(
        self,
        ws: Tensor,  # [N, 1, w_dim]
        noise: dict[str, Tensor | None],  # empty
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width] in [-1, 1]
        x = F.relu(self.norm(self.dense(ws[:, 0])))
        for level in self.levels[1:]:
            x = x.to(dtype if dtype is not None and level.half else ws.dtype)
            x = self.get_submodule(f"b{level.name}.up")(x)
            if level is not self.levels[-1]:
                x = F.relu(self.get_submodule(f"b{level.name}.norm")(x))
        return x.to(ws.dtype).tanh()

    def style_weight(
        self,
        row: LayerInfo,
    ) -> Tensor:  # [styles, w_dim]
        return self.dense.affine.weight


class DCGAN(Generator):
    def __init__(self, config: DCGANConfig):
        embed = nn.Identity() if config.c_dim else None
        super().__init__(config, SynthesisNetwork(config), DirectMapping(config, embed, num_ws=1, uniform=True))


build = DCGAN  # for `family.lazy_build`
