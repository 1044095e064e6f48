"""R3GAN's generator with styles, ours: each of its residual blocks scales its features by an affine map of a latent, as
the layers of StyleGAN do, so that images can be mixed, projected and edited layer by layer."""

from __future__ import annotations

from torch import Tensor

from ...layers import PlainLinear
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
            rows.append(LayerInfo(name, "conv", w_index, k, at.height, at.width, at.channels, False, at.half))
    return tuple(rows)


class StyledBlock(ResidualBlock):
    """x + conv2((1 + A w) * inner(x)),   inner as in R3GAN's block

    A starts at 0, and scales features without normalizing them."""

    def __init__(self, config: StyleR3GANConfig, channels: int):
        super().__init__(config, channels)
        self.affine = PlainLinear(config.w_dim, channels * config.expansion, gain=0.0)

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, H, W]
        style = 1 + self.affine(w)[:, :, None, None]
        return x + self.conv2(self.inner(x) * style.to(x.dtype))


class StyleR3GAN(Generator):
    def __init__(self, config: StyleR3GANConfig):
        synthesis = ResidualSynthesis(config, layer_table(config), config.w_dim, StyledBlock)
        super().__init__(config, synthesis, MappingNetwork.of(config, synthesis.num_ws))


build = StyleR3GAN  # for `family.lazy_build`
