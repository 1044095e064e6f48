"""Configurations of both networks of DCGAN (Radford et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..classic.config import ClassicConfig, ClassicDiscriminatorConfig


@dataclass(frozen=True)
class DCGANConfig(ClassicConfig):
    family: ClassVar[str] = "dcgan"
    title: ClassVar[str] = "DCGAN"

    z_dim: int = 100
    channel_base: int = 4096
    channel_max: int = 1024


@dataclass(frozen=True)
class DCGANDiscriminatorConfig(ClassicDiscriminatorConfig):
    family: ClassVar[str] = "dcgan"
    uses_batch: ClassVar[bool] = True  # batch normalization

    channel_base: int = 4096
    channel_max: int = 1024
