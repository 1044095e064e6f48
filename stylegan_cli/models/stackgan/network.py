"""The generators of StackGAN (Zhang et al. 2017, "StackGAN: Text to Photo-realistic Image Synthesis with Stacked
Generative Adversarial Networks", section 3), for labels instead of sentences.

Conditioning augmentation: c^ = mu(c) + sigma(c) * epsilon, epsilon ~ N(0, I), a part of z (section 3.2). Without labels
mu = 0 and sigma = 1, the distribution to which its regularization pulls.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import PlainConv2d, PlainLinear
from ..chain.network import Chain, Stage
from ..dcgan.network import DEVIATION, batch_norm
from .config import StackganConfig


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = False) -> PlainConv2d:
    """A convolution whose weights all start with the same deviation."""
    gain = DEVIATION * math.sqrt(in_channels * kernel**2)
    return PlainConv2d(in_channels, out_channels, kernel, gain=gain, bias=bias, stride=stride)


class Block(nn.Module):
    """Convolution, batch normalization and activation; upwards, of an image enlarged by its nearest pixels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,  # 2 halves the size, with a kernel of 4
        up: bool = False,
        slope: float | None = 0.0,  # of the activation below 0; None: no activation
    ):
        super().__init__()
        self.up, self.slope = up, slope
        self.conv, self.norm = conv(in_channels, out_channels, kernel, stride), batch_norm(out_channels)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, h, w]
    ) -> Tensor:  # [N, out_channels, H, W]
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x
        x = self.norm(self.conv(x))
        return x if self.slope is None else F.leaky_relu(x, self.slope)


class ResidualBlock(nn.Module):
    """y = relu(x + norm(conv(relu(norm(conv(x)))))) (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.block0, self.block1 = Block(channels, channels), Block(channels, channels, slope=None)

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
    ) -> Tensor:  # [N, channels, H, W]
        return F.relu(x + self.block1(self.block0(x)))


class Condition(nn.Module):
    """Conditioning augmentation (section 3.2)."""

    def __init__(self, config: StackganConfig):
        super().__init__()
        self.size, self.part = config.condition, config.part
        self.affine = PlainLinear(config.c_dim, 2 * self.size, bias=True) if config.c_dim else None

    def forward(
        self,
        w: Tensor,  # [N, w_dim]: epsilon, other noise, label
    ) -> Tensor:  # [N, condition]
        epsilon = w[:, : self.size]
        if self.affine is None:
            return epsilon
        mean, log_variance = self.posterior(w[:, self.part :])
        return mean + (log_variance / 2).exp() * epsilon

    def posterior(
        self,
        c: Tensor,  # [N, c_dim]
    ) -> tuple[Tensor, Tensor]:  # [N, condition] mean, log variance
        assert self.affine is not None
        mean, log_variance = self.affine(c).chunk(2, 1)
        return mean, log_variance


class StackStage(Stage):
    def __init__(self, config: StackganConfig):
        super().__init__()
        self.condition = Condition(config)

    def posterior(
        self,
        c: Tensor,  # [N, c_dim]
    ) -> tuple[Tensor, Tensor]:  # [N, condition] mean, log variance
        return self.condition.posterior(c)


class FirstStage(StackStage):
    """From noise and condition to a small image, level by level (section 3.3)."""

    def __init__(self, config: StackganConfig):
        super().__init__(config)
        self.noise, self.w_dim = slice(config.condition, config.part), config.w_dim
        lowest, *levels = config.stage_levels(0)
        self.shape = (lowest.channels, lowest.height, lowest.width)
        self.dense = conv(config.part, lowest.channels * lowest.height * lowest.width, 1)
        self.norm = batch_norm(lowest.channels)
        channels = lowest.channels
        for level in levels:
            self.add_module(f"b{level.name}", Block(channels, level.channels, up=True))
            channels = level.channels
        self.names = [f"b{level.name}" for level in levels]
        self.out = conv(channels, config.channels, 3, bias=True)

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        below: Tensor | None,  # None
    ) -> Tensor:  # [N, C, H, W] in [-1, 1]
        x = torch.cat([self.condition(w), w[:, self.noise]], 1)
        x = F.relu(self.norm(self.dense(x[:, :, None, None]).flatten(1).unflatten(1, self.shape)))
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.out(x).tanh()

    def style_weight(self) -> Tensor:  # [features, w_dim]
        """With respect to the noise; a label changes the features in other ways."""
        return F.pad(self.dense.weight[:, :, 0, 0], (0, self.w_dim - self.noise.stop))


class SecondStage(StackStage):
    """Encodes the small image, adds the condition, and decodes both at the full size (section 3.4)."""

    def __init__(self, config: StackganConfig):
        super().__init__(config)
        self.w_dim = config.w_dim
        levels = {level.name: level for level in config.stage_levels(1, factor=2)}
        first, last = config.stages
        bottom = max(first.name // 4, min(first.name, 8))  # 16 as published; not below 8, where too little remains
        self.encode = nn.Sequential(conv(config.channels, levels[first.name].channels, 3, bias=True), nn.ReLU())
        name = first.name
        while name > bottom:
            self.encode.append(Block(levels[name].channels, levels[name // 2].channels, 4, stride=2))
            name //= 2
        channels = levels[bottom].channels
        self.join = Block(channels + config.condition, channels)
        self.residual = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.blocks)))
        self.decode = nn.Sequential()
        while name < last.name:
            self.decode.append(Block(levels[name].channels, levels[2 * name].channels, up=True))
            name *= 2
        self.out = conv(levels[last.name].channels, config.channels, 3, bias=True)

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
        below: Tensor | None,  # [N, C, h, w]
    ) -> Tensor:  # [N, C, H, W] in [-1, 1]
        assert below is not None
        x = self.encode(below)
        condition = self.condition(w)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = self.residual(self.join(torch.cat([x, condition], 1)))
        return self.out(self.decode(x)).tanh()

    def style_weight(self) -> Tensor:  # [features, w_dim]
        """With respect to the noise, away from the edges."""
        weight = self.join.conv.weight.sum((2, 3))[:, -self.condition.size :]
        return F.pad(weight, (0, self.w_dim - self.condition.size))


def build(config: StackganConfig) -> Chain:
    """Build the generators, for `family.lazy_build`."""
    return Chain(config, lambda k, level: SecondStage(config) if k else FirstStage(config))
