"""R3GAN's generator with styles, ours: each of its residual blocks scales its features by an affine map of a latent and
adds noise, as the layers of StyleGAN do, so that images can be mixed, projected and edited layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...layers import PlainLinear
from ...layers.initial import normal
from ..config import Level
from ..generator import Generator, LayerInfo
from ..mapping import MappingNetwork
from ..r3gan.blocks import ResidualBlock
from ..r3gan.network import ResidualSynthesis
from .config import StyleR3GANConfig


def layer_table(
    config: StyleR3GANConfig,
) -> tuple[LayerInfo, ...]:
    """The blocks of each level; the learned maps of the lowest one share the latent of the first block."""
    lowest, *_ = levels = config.levels()
    size = lowest.height, lowest.width, lowest.channels
    rows = [LayerInfo("synthesis.b4.basis", "conv", 0, 0, *size, False, lowest.half)]
    for k, at in enumerate(levels):
        for i in range(config.blocks):
            name, w_index = f"synthesis.b{at.name}.blocks.{i}", k * config.blocks + i
            size = at.height, at.width, at.channels
            rows.append(LayerInfo(name, "conv", w_index, k, *size, config.noise, at.half))
    return tuple(rows)


class StyledBlock(ResidualBlock):
    """x + conv2((1 + A w) inner(x, strength * noise)),   inner as in R3GAN's block

    A and the strength, one for each channel, start at 0. Features are scaled without being normalized."""

    def __init__(
        self,
        config: StyleR3GANConfig,
        level: Level,
    ):
        super().__init__(config, level)
        wide = level.channels * config.expansion
        self.affine = PlainLinear(config.w_dim, wide, gain=0.0)
        if config.noise:
            self.noise_strength = nn.Parameter(torch.zeros(wide, 1, 1))
            self.register_buffer("noise_const", normal(level.height, level.width))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (blocks of this network only)
        self,
        x: Tensor,  # [N, channels, H, W]
        w: Tensor,  # [N, w_dim]
        noise: Tensor | None,  # [N or 1, 1, H, W]; None: no noise
    ) -> Tensor:  # [N, channels, H, W]
        style = 1 + self.affine(w)[:, :, None, None]
        noise = None if noise is None else (self.noise_strength * noise).to(x.dtype)
        return x + self.conv2(self.inner(x, noise) * style.to(x.dtype))


class StyleR3GAN(Generator):
    def __init__(self, config: StyleR3GANConfig):
        synthesis = ResidualSynthesis(config, layer_table(config), config.w_dim, StyledBlock)
        super().__init__(config, synthesis, MappingNetwork.of(config, synthesis.num_ws))


build = StyleR3GAN  # for `family.lazy_build`
