"""Configuration of the generator of SNGAN (Miyato et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..classic.config import ResidualGeneratorConfig


@dataclass(frozen=True)
class SNGANConfig(ResidualGeneratorConfig):
    family: ClassVar[str] = "sngan"
    title: ClassVar[str] = "SNGAN"
