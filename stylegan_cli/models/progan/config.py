"""Configuration of the traditional generator (Karras et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..config import GeneratorConfig, GrowingConfig


@dataclass(frozen=True)
class ProGANConfig(GrowingConfig, GeneratorConfig):
    family: ClassVar[str] = "progan"
    title: ClassVar[str] = "ProGAN"
    has_styles: ClassVar[bool] = False

    w_avg_beta: float = 0.995  # decay of the running mean of w, per batch

    @property
    def w_dim(self) -> int:
        """There is no mapping network: w is z, concatenated with the label embedding."""
        return self.z_dim * (2 if self.c_dim else 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(0 <= self.w_avg_beta <= 1, f"w_avg_beta {self.w_avg_beta}")
