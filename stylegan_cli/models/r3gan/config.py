"""Configurations of both networks of R3GAN (Huang et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice, check_range
from ..config import DirectConfig, DiscriminatorConfig, LevelsConfig


@dataclass(frozen=True)
class ResidualConfig(LevelsConfig):
    """What both networks have: levels of residual blocks with grouped convolutions (ResNeXt)."""

    channel_base: int = 24576
    channel_max: int = 768
    blocks: int = 2  # residual blocks of each level
    expansion: int = 2  # a block is wider by this factor
    group_channels: int = 16  # of a grouped convolution, about

    @property
    def residual_gain(self) -> float:
        """V^(-1/4) of V blocks with three layers each: with the last ones zero, the variance does not grow with depth
        (Zhang et al. 2019, "Fixup Initialization")."""
        return (self.blocks * len(self.levels())) ** -0.25

    def groups(
        self,
        channels: int,  # of the level
    ) -> int:
        wide = channels * self.expansion
        return math.gcd(wide, max(wide // self.group_channels, 1))

    def _details(self) -> list[str]:
        return [*super()._details(), f"{self.blocks} blocks per level"]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("blocks", "expansion", "group_channels"):
            check_range(self, name, 1)


@dataclass(frozen=True)
class R3GANConfig(ResidualConfig, DirectConfig):
    family: ClassVar[str] = "r3gan"
    title: ClassVar[str] = "R3GAN"
    half_type: ClassVar[str] = "bf16"  # nothing bounds the features, which can exceed the range of float16

    z_dim: int = 64

    @property
    def w_dim(self) -> int:
        """There is no mapping network: w is z, followed by an embedding of the label of the same size."""
        return self.z_dim * (2 if self.c_dim else 1)


@dataclass(frozen=True)
class R3GANDiscriminatorConfig(ResidualConfig, DiscriminatorConfig):
    family: ClassVar[str] = "r3gan"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("discriminator labels", self.labels, ("projection", "classifier"))
