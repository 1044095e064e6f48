"""Configuration of R3GAN's generator with styles, ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..config import StyledConfig
from ..r3gan.config import ResidualConfig


@dataclass(frozen=True)
class StyleR3GANConfig(ResidualConfig, StyledConfig):
    family: ClassVar[str] = "style-r3gan"
    title: ClassVar[str] = "StyleR3GAN"
    half_type: ClassVar[str] = "bf16"  # as of R3GAN

    z_dim: int = 64
    w_dim: int = 64
    mapping_layers: int = 2
    noise: bool = True  # whether blocks add noise

    def _details(self) -> list[str]:
        return [*super()._details(), *([] if self.noise else ["no noise"])]
