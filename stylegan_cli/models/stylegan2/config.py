"""Configuration of a StyleGAN2 generator (Karras et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice
from ..config import LevelsConfig, StyledConfig


@dataclass(frozen=True)
class StyleGAN2Config(LevelsConfig, StyledConfig):
    family: ClassVar[str] = "stylegan2"
    title: ClassVar[str] = "StyleGAN2"

    input: str = "const"  # of the lowest level: 'const': learned; 'fourier': fixed waves, as in StyleGAN3
    noise: bool = True  # whether layers add noise
    architecture: str = "skip"  # 'skip': sum of the toRGBs of all levels; 'resnet'; 'orig': one toRGB at the end
    conv_clamp: float | None = 256.0  # bound on convolution outputs, so that half precision cannot overflow

    @property
    def takes_transform(self) -> bool:
        return self.input == "fourier"

    def _name(self) -> str:
        return f"{self.title}, {self.architecture}"

    def _details(self) -> list[str]:
        parts = {"Fourier features": self.input == "fourier", "no noise": not self.noise}
        return [*super()._details(), *(part for part, has in parts.items() if has)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("generator input", self.input, ("const", "fourier"))
        check_choice("generator architecture", self.architecture, ("skip", "resnet", "orig"))
