"""Networks of residual blocks with spectral normalization (Miyato et al. 2018, figures 9 and 10, tables 4 to 6), with
self-attention (Zhang et al. 2019) and what BigGAN adds (Brock et al. 2019, figures 15 and 16)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers import BatchNorm, ConditionalBatchNorm, SelfAttention, SpectralConv2d, SpectralLinear
from ..config import Level
from ..generator import LayerInfo, Synthesis
from .config import ResidualDiscriminatorConfig
from .discriminator import ClassicDiscriminator


class Dense(nn.Module):
    """From the latent to the features of the lowest level."""

    def __init__(
        self,
        in_features: int,  # numbers of the latent that it takes, from the first
        level: Level,
        spectral: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.shape, self.in_features = (level.channels, level.height, level.width), in_features
        self.affine = SpectralLinear(in_features, math.prod(self.shape), bias, spectral)

    def forward(
        self,
        w: Tensor,  # [N, in_features or more]
    ) -> Tensor:  # [N, channels, height, width]
        return self.affine(w[:, : self.in_features]).unflatten(1, self.shape)


class Norm(nn.Module):
    """Batch normalization, whose gain and bias depend on a part of the latent if there is one."""

    def __init__(
        self,
        channels: int,
        condition: slice,  # of the numbers of the latent
        spectral: bool,
        zero: bool,  # whether the maps of the condition start at 0
    ):
        super().__init__()
        self.condition, features = condition, condition.stop - condition.start
        make = functools.partial(_conditional_map, features, spectral=spectral, zero=zero)
        self.norm = ConditionalBatchNorm(channels, make) if features else BatchNorm(channels)

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, H, W]
        if isinstance(self.norm, BatchNorm):
            return self.norm(x)
        return self.norm(x, w[:, self.condition])


def _conditional_map(features: int, channels: int, spectral: bool, zero: bool) -> SpectralLinear:
    linear = SpectralLinear(features, channels, bias=False, spectral=spectral and not zero)
    if zero:
        nn.init.zeros_(linear.weight)
    return linear


class UpBlock(nn.Module):
    """conv(relu(norm(conv(up(relu(norm(x))))))) + conv(up(x))"""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition: slice,  # of the numbers of the latent, for the normalizations
        spectral: bool,
        zero: bool,
    ):
        super().__init__()
        self.norm0 = Norm(in_channels, condition, spectral, zero)
        self.conv0 = SpectralConv2d(in_channels, out_channels, 3, spectral=spectral)
        self.norm1 = Norm(out_channels, condition, spectral, zero)
        self.conv1 = SpectralConv2d(out_channels, out_channels, 3, spectral=spectral)
        self.skip = SpectralConv2d(in_channels, out_channels, 1, spectral=spectral)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, out_channels, 2 H, 2 W]
        y = self.conv0(F.interpolate(F.relu(self.norm0(x, w)), scale_factor=2))
        y = self.conv1(F.relu(self.norm1(y, w)))
        return y + F.interpolate(self.skip(x), scale_factor=2)  # a 1x1 convolution costs less before


class ResidualSynthesis(Synthesis):
    """A dense layer, a block for each doubling of the size, and a convolution to the image."""

    can_freeze = False

    def __init__(
        self,
        layers: tuple[LayerInfo, ...],
        levels: tuple[Level, ...],
        channels: int,  # of the image
        w_dim: int,
        z_dim: int,  # numbers of w that the first layer takes
        condition: slice,  # of the numbers of w that normalizations take
        spectral: bool = False,
        attention: int = 0,  # level after which there is self-attention; 0: none
        pooled_attention: bool = False,
        zero: bool = True,  # whether the conditions have no effect at first
    ):
        super().__init__(layers, w_dim)
        self.levels = levels
        self.dense = Dense(z_dim, levels[0], spectral)
        for below, level in zip(levels, levels[1:]):
            block = UpBlock(below.channels, level.channels, condition, spectral, zero)
            self.add_module(f"b{level.name}", block)
            if level.name == attention:
                self.attention = SelfAttention(level.channels, pooled_attention, spectral)
        self.attention_level = attention
        self.norm = BatchNorm(levels[-1].channels)
        self.torgb = SpectralConv2d(levels[-1].channels, channels, 3, spectral=spectral)

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # empty
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width] in [-1, 1]
        x = self.dense(ws[:, 0])
        for k, level in enumerate(self.levels[1:], 1):
            x = x.to(dtype if dtype is not None and level.half else ws.dtype)
            w = ws[:, min(k, self.num_ws - 1)].to(x.dtype)
            x = self.get_submodule(f"b{level.name}")(x, w)
            if level.name == self.attention_level:
                x = self.attention(x)
        return self.torgb(F.relu(self.norm(x.to(ws.dtype)))).tanh()

    def style_weight(
        self,
        row: LayerInfo,
    ) -> Tensor:  # [styles, w_dim]
        """Of a block, the maps of all gains and biases; of the first layer, the dense one."""
        layer = self.get_submodule(row.path)
        maps: list[tuple[SpectralLinear, int]] = []  # and the first number of w that each takes
        if isinstance(layer, Dense):
            maps.append((layer.affine, 0))
        else:
            norms = [(m.norm, m.condition.start) for m in layer.modules() if isinstance(m, Norm)]
            maps += [(f, at) for norm, at in norms for f in (norm.gain, norm.bias) if isinstance(f, SpectralLinear)]
        rows = []
        for linear, start in maps:
            weight = linear.weight * linear.weight_gain
            rows.append(F.pad(weight, (start, self.w_dim - start - weight.shape[1])))
        return torch.cat(rows)


class DownBlock(nn.Module):
    """pool(conv(relu(conv(relu(x))))) + pool(conv(x)); the first block begins without an activation."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        down: bool,
        first: bool = False,  # whether x is the image
    ):
        super().__init__()
        self.down, self.first = down, first
        self.conv0 = SpectralConv2d(in_channels, hidden, 3)
        self.conv1 = SpectralConv2d(hidden, out_channels, 3)
        self.skip = SpectralConv2d(in_channels, out_channels, 1) if down or in_channels != out_channels else None

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H, W], or half the size
        y = self.conv1(F.relu(self.conv0(x if self.first else F.relu(x))))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)  # a 1x1 convolution costs less behind
        return y + (x if self.skip is None else self.skip(x))


class ResidualDiscriminator(ClassicDiscriminator):
    """h is the sum of relu(x) over the pixels of the lowest level."""

    config: ResidualDiscriminatorConfig

    def __init__(self, config: ResidualDiscriminatorConfig):
        levels = config.levels()[::-1]  # from that of the image
        below = min(config.channel_base // (config.lowest // 2), config.channel_max)  # at half the lowest level
        super().__init__(config, below if config.extra_blocks else levels[-1].channels, spectral=True)
        # Of each block: name, whether it runs in half precision, channels of the result, whether it halves the size.
        blocks = [(f"b{at.name}", at.half, to.channels, True) for at, to in zip(levels, levels[1:])]
        blocks += [(f"extra{k}", False, below, False) for k in range(config.extra_blocks)]
        channels, self.blocks = config.channels, [(name, half) for name, half, *_ in blocks]
        names: list[str] = []
        for k, (name, _, result, down) in enumerate(blocks):
            hidden = result if config.wide or not k else channels
            self.add_module(name, DownBlock(channels, hidden, result, down, first=not k))
            names.append(name)
            channels = result
            if name == f"b{2 * config.attention}":  # whose result is that level
                self.attention = SelfAttention(channels, config.pooled_attention)
                names.append("attention")
        self.layers = (*names, "out")

    def levels_of(
        self,
        image: Tensor,  # [N, channels, height, width]
        dtype: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] after each block
        x = image
        for name, half in self.blocks:
            x = self.get_submodule(name)(x.to(dtype if dtype is not None and half else image.dtype))
            if name == f"b{2 * self.config.attention}":
                x = self.attention(x)
            yield x

    def pooled(
        self,
        x: Tensor,  # [N, C, h, w] after the last block
    ) -> Tensor:  # [N, C]
        return F.relu(x).sum([2, 3])


build = ResidualDiscriminator  # for `family.lazy_build`
