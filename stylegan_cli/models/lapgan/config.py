"""Configurations of both networks of LAPGAN (Denton et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_range
from ..chain.config import ChainConfig, ChainDiscriminatorConfig
from ..config import Level


@dataclass(frozen=True)
class LapganConfig(ChainConfig):
    """A stage for each level of a Laplacian pyramid."""

    family: ClassVar[str] = "lapgan"
    title: ClassVar[str] = "LAPGAN"

    z_dim: int = 300
    channel_base: int = 8192  # of the convolutional stages
    channel_max: int = 128
    lowest: int = 8
    hidden: int = 1200  # units of both hidden layers of the lowest stage

    @property
    def stages(self) -> tuple[Level, ...]:
        return self.levels()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "hidden", 1)


@dataclass(frozen=True)
class LapganDiscriminatorConfig(ChainDiscriminatorConfig):
    family: ClassVar[str] = "lapgan"

    channel_base: int = 4096
    channel_max: int = 64
    lowest: int = 8
    hidden: int = 600

    @property
    def stages(self) -> tuple[Level, ...]:
        return self.levels()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "hidden", 1)
