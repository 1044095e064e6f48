"""The generator of R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline"): levels of
residual blocks, without styles, noise and normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...layers import PlainConv2d, PlainLinear
from ...layers.initial import normal
from ..config import Level
from ..generator import Generator, LayerInfo, Synthesis
from ..mapping import DirectMapping
from .blocks import Resample, ResidualBlock, level_blocks
from .config import R3GANConfig, ResidualConfig


def layer_table(
    config: R3GANConfig,
) -> tuple[LayerInfo, ...]:
    """A single row: the latent controls only the first layer."""
    at = config.levels()[0]
    return (LayerInfo("synthesis.b4.basis", "conv", 0, 0, at.height, at.width, at.channels, False, at.half),)


class Basis(nn.Module):
    """From the latent to the features of the lowest level: learned maps, scaled by A w."""

    def __init__(
        self,
        w_dim: int,
        level: Level,
    ):
        super().__init__()
        self.affine = PlainLinear(w_dim, level.channels)
        self.maps = nn.Parameter(normal(level.channels, level.height, level.width))

    def forward(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, channels, height, width]
        return self.maps.to(w.dtype) * self.affine(w)[:, :, None, None]


class ResidualSynthesis(Synthesis):
    """Learned maps, then levels of blocks. Blocks in the layer table also take their latent and noise."""

    def __init__(
        self,
        config: ResidualConfig,
        layers: Sequence[LayerInfo],
        w_dim: int,
        block_class: type[ResidualBlock] = ResidualBlock,
    ):
        super().__init__(layers, w_dim)
        self.levels = config.levels()
        below = None
        for level in self.levels:
            block = nn.Module()
            if below:
                block.resample = Resample(config, below.channels, level.channels, up=2)
            else:
                block.basis = Basis(w_dim, level)
            block.blocks = level_blocks(config, level, block_class)
            self.add_module(f"b{level.name}", block)
            below = level
        self.torgb = PlainConv2d(self.levels[-1].channels, config.channels, 1)

    def synthesize(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        noise: dict[str, Tensor | None],  # [N or 1, 1, h, w] by the name of each layer that takes noise
        dtype: torch.dtype | None,
        transform: Tensor | None,
    ) -> Tensor:  # [N, channels, height, width]
        each_w, x = ws.unbind(1), ws[:, 0]
        inputs = {row.path: (each_w[row.w_index], noise.get(row.name)) for row in self.layers}
        for level in self.levels:
            enter = "basis" if level is self.levels[0] else "resample"
            x = x.to(dtype if dtype is not None and level.half else ws.dtype)
            x = self.get_submodule(f"b{level.name}.{enter}")(x)
            blocks = f"b{level.name}.blocks"
            for i, block in self.get_submodule(blocks).named_children():
                x = block(x, *inputs.get(f"{blocks}.{i}", ()))
        return self.torgb(x).to(ws.dtype)


class R3GAN(Generator):
    def __init__(self, config: R3GANConfig):
        embed = PlainLinear(config.c_dim, config.z_dim) if config.c_dim else None
        synthesis = ResidualSynthesis(config, layer_table(config), config.w_dim)
        super().__init__(config, synthesis, DirectMapping(config, embed, num_ws=1))


build = R3GAN  # for `family.lazy_build`
