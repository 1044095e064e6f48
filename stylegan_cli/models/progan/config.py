"""Configuration of the traditional generator (Karras et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..config import DirectConfig, GrowingConfig


@dataclass(frozen=True)
class ProGANConfig(GrowingConfig, DirectConfig):
    family: ClassVar[str] = "progan"
    title: ClassVar[str] = "ProGAN"

    @property
    def w_dim(self) -> int:
        """There is no mapping network: w is z, concatenated with the label embedding."""
        return self.z_dim * (2 if self.c_dim else 1)
