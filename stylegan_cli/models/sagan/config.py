"""Configuration of the generator of SAGAN (Zhang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..classic.config import ResidualGeneratorConfig


@dataclass(frozen=True)
class SAGANConfig(ResidualGeneratorConfig):
    family: ClassVar[str] = "sagan"
    title: ClassVar[str] = "SAGAN"

    spectral: bool = True
