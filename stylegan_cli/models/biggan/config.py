"""Configuration of the generator of BigGAN (Brock et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_range
from ..classic.config import ResidualGeneratorConfig


@dataclass(frozen=True)
class BigGANConfig(ResidualGeneratorConfig):
    family: ClassVar[str] = "biggan"
    title: ClassVar[str] = "BigGAN"
    has_styles: ClassVar[bool] = True  # each block has a part of z of its own

    z_dim: int = 120
    spectral: bool = True
    embedding: int = 128  # numbers of the embedded label, which all blocks share

    @property
    def parts(self) -> int:
        """Of z: one for the first layer and each block. A rest has no effect."""
        return len(self.levels())

    @property
    def w_dim(self) -> int:
        """There is no mapping network: a w is a part of z, followed by the embedded label."""
        return self.z_dim // self.parts + (self.embedding if self.c_dim else 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "embedding", 1)
