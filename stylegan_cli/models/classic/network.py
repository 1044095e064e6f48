"""Generators of residual blocks with one latent: SNGAN and SAGAN."""

from __future__ import annotations

from torch import nn

from ..generator import Generator, LayerInfo
from ..mapping import DirectMapping
from .config import ResidualGeneratorConfig
from .residual import ResidualSynthesis


class ResidualGenerator(Generator):
    """The first layer takes z; labels set the gains and biases of batch normalization (Miyato and Koyama 2018)."""

    def __init__(self, config: ResidualGeneratorConfig):
        levels, embed = config.levels(), nn.Identity() if config.c_dim else None
        at = levels[0]
        row = LayerInfo("synthesis.dense", "conv", 0, 0, at.height, at.width, at.channels, False, False)
        synthesis = ResidualSynthesis(
            (row,),
            levels,
            config.channels,
            config.w_dim,
            config.z_dim,
            slice(config.z_dim, config.w_dim),
            config.spectral,
            config.attention,
        )
        super().__init__(config, synthesis, DirectMapping(config, embed, num_ws=1))
