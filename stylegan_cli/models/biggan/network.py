"""The generator of BigGAN (Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis",
figure 15 and tables 4 to 6): each block takes a part of z and the embedded label, which all share."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers import SpectralLinear
from ..classic.residual import ResidualSynthesis
from ..generator import Generator, LayerInfo
from ..mapping import DirectMapping
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


class HierarchicalMapping(DirectMapping):
    """w_k is part k of z, followed by the embedded label."""

    def __init__(self, config: BigGANConfig):
        embed = SpectralLinear(config.c_dim, config.embedding, bias=False, spectral=False) if config.c_dim else None
        super().__init__(config, embed, num_ws=config.parts)

    def forward(
        self,
        z: Tensor | None,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim] one-hot; None for an unconditional network
        truncation_psi: float | Tensor = 1.0,  # 1: no truncation, 0: the mean of w
        truncation_cutoff: int | None = None,  # number of ws to truncate; None: all
    ) -> Tensor:  # [N, num_ws, w_dim]
        assert z is not None and self.num_ws is not None
        ws = z.unflatten(1, (self.num_ws, -1))
        if self.c_dim:
            label = self._input(z, c)[:, self.z_dim :]
            ws = torch.cat([ws, label[:, None].expand(-1, self.num_ws, -1)], 2)
        self.collect(ws[:, 0])
        return self.truncate(ws, truncation_psi, truncation_cutoff)


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
        super().__init__(config, synthesis, HierarchicalMapping(config))


build = BigGAN  # for `family.lazy_build`
