"""The generator of BigGAN (Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis",
figure 15 and tables 4 to 6): each block takes a part of z and the embedded label, which all share."""

from __future__ import annotations

from ...layers import SpectralLinear
from ..classic.residual import ResidualSynthesis
from ..generator import Generator, LayerInfo
from ..mapping import PartsMapping
from .config import BigGANConfig


def layer_table(
    config: BigGANConfig,
) -> tuple[LayerInfo, ...]:
    """The dense layer and the blocks."""
    names = ["synthesis.dense", *(f"synthesis.b{level.name}" for level in config.levels()[1:])]
    return tuple(
        LayerInfo(name, "conv", k, k, at.height, at.width, at.channels, False, k > 0 and at.half)
        for k, (name, at) in enumerate(zip(names, config.levels(), strict=True))
    )


class BigGAN(Generator):
    def __init__(self, config: BigGANConfig):
        part = config.z_dim // config.parts
        synthesis = ResidualSynthesis(
            layer_table(config),
            config.levels(),
            config.channels,
            config.w_dim,
            part,
            slice(0, config.w_dim),
            config.spectral,
            config.attention,
            pooled_attention=True,
            zero=False,
        )
        embed = SpectralLinear(config.c_dim, config.embedding, bias=False, spectral=False) if config.c_dim else None
        super().__init__(config, synthesis, PartsMapping(config, embed, config.parts))


build = BigGAN  # for `family.lazy_build`
