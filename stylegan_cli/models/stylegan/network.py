"""StyleGAN generator of 2018 (Karras et al. 2019, "A Style-Based Generator Architecture", figure 1b, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...layers import EqualLinear, adain
from ...layers.initial import normal
from ...ops import bias_act, blur2d, conv2d_resample, fir_filter
from ..generator import Generator, LayerInfo, Synthesis
from ..growing import ImageOutput
from ..mapping import MappingNetwork
from .config import StyleGANConfig


def layer_table(
    config: StyleGANConfig,
) -> tuple[LayerInfo, ...]:
    """Two layers per level; the first layer of the lowest level has no convolution. Before them the input, if it is a
    function of the latent."""
    levels, rows = config.levels(), []
    if config.input == "latent":
        size = levels[0].height, levels[0].width, levels[0].channels
        rows.append(LayerInfo("synthesis.input", "conv", 0, 0, *size, False, levels[0].half))
    for k, level in enumerate(levels):
        size = level.height, level.width, level.channels
        for i, name in enumerate(("conv0", "conv1"), 2 * k):
            rows.append(LayerInfo(f"synthesis.b{level.name}.{name}", "conv", i, k, *size, config.noise, level.half))
    return tuple(rows)


class StyledConv2d(nn.Module):
    """y = AdaIN(lrelu(blur(conv(up(x))) + strength * noise + bias), A w), in the first layer without conv."""

    def __init__(
        self,
        config: StyleGANConfig,
        in_channels: int,  # 0: no convolution
        row: LayerInfo,
        up: int = 1,  # 1 or 2; 2: the input has half the size of the output
    ):
        super().__init__()
        self.up, self.has_conv = up, in_channels > 0
        if in_channels:
            self.weight_gain = math.sqrt(2 / (in_channels * 9))
            self.weight = nn.Parameter(normal(row.channels, in_channels, 3, 3))
        self.resample_filter: Tensor
        self.blur_filter: Tensor
        if up == 2:
            self.register_buffer("resample_filter", fir_filter(config.fir), persistent=False)
            self.register_buffer("blur_filter", fir_filter(config.blur or [1.0]), persistent=False)
        if config.noise:
            self.noise_strength = nn.Parameter(torch.zeros(row.channels))
            self.register_buffer("noise_const", normal(row.height, row.width))
        self.bias = nn.Parameter(torch.zeros(row.channels))
        self.affine = EqualLinear(config.w_dim, 2 * row.channels)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H / up, W / up]
        w: Tensor,  # [N, w_dim]
        noise: Tensor | None,  # [N or 1, 1, H, W]; None: no noise
    ) -> Tensor:  # [N, out_channels, H, W]
        if self.has_conv:
            w3 = (self.weight * self.weight_gain).to(x.dtype)
            x = conv2d_resample(x, w3, self.resample_filter if self.up == 2 else None, up=self.up)
        if self.up == 2:
            x = blur2d(x, self.blur_filter)
        if noise is not None:
            x = torch.addcmul(x, noise.to(x.dtype), self.noise_strength[:, None, None].to(x.dtype))
        x = bias_act(x, self.bias.to(x.dtype), act="lrelu", gain=1)
        return adain(x, self.affine(w))


class LatentInput(nn.Module):
    """From the latent to the input of the lowest level: x = reshape(A w)."""

    def __init__(self, w_dim: int, shape: tuple[int, int, int]):
        super().__init__()
        self.shape, self.affine = shape, EqualLinear(w_dim, math.prod(shape), bias=False)

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, height, width]
        return (self.affine(w) * (math.sqrt(2) / 4)).unflatten(1, self.shape)


class SynthesisNetwork(Synthesis):
    def __init__(self, config: StyleGANConfig):
        super().__init__(layer_table(config), config.w_dim)
        levels = config.levels()
        shape, channels = (levels[0].channels, levels[0].height, levels[0].width), 0
        if config.input == "const":
            self.const = nn.Parameter(torch.ones(shape))
        else:
            self.input = LatentInput(config.w_dim, shape)
        for row in self.layers[config.input == "latent" :]:
            block, _, name = row.path.rpartition(".")
            if name == "conv0":
                self.add_module(block, nn.Module())
            layer = StyledConv2d(config, channels, row, up=2 if name == "conv0" and channels else 1)
            self.get_submodule(block).add_module(name, layer)
            channels = row.channels
        self.pictures = ImageOutput(config)

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        return self.pictures(self._features(ws, noise, dtype))

    def _features(
        self, ws: Tensor, noise: dict[str, Tensor | None], half: torch.dtype | None
    ) -> Iterator[Tensor]:  # [N, C, h, w] of each level, lowest first
        first, *rest = self.layers
        if first.path == "input":
            x, rows = self.input(ws[:, first.w_index]), rest
        else:
            x, rows = self.const.expand(ws.shape[0], -1, -1, -1), [first, *rest]
        for row in rows:
            x = x.to(half if half is not None and row.half else ws.dtype)
            x = self.get_submodule(row.path)(x, ws[:, row.w_index], noise.get(row.name))
            if row.path.endswith("conv1"):
                yield x


class StyleGAN(Generator):
    def __init__(self, config: StyleGANConfig):
        synthesis = SynthesisNetwork(config)
        mapping = MappingNetwork.of(config, synthesis.num_ws, truncated=config.truncated)
        super().__init__(config, synthesis, mapping)


build = StyleGAN  # for `family.lazy_build`
