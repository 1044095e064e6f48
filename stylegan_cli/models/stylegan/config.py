"""Configuration of a StyleGAN generator of 2018 (Karras et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...config import check_choice
from ..config import GrowingConfig, StyledConfig, is_filter


@dataclass(frozen=True)
class StyleGANConfig(GrowingConfig, StyledConfig):
    family: ClassVar[str] = "stylegan"
    title: ClassVar[str] = "StyleGAN (2018)"

    input: str = "const"  # of the lowest level: 'const': learned; 'latent': a linear function of w, as in ProGAN
    noise: bool = True  # whether layers add noise
    truncated: int | None = None  # default truncation cutoff; None: all ws are truncated
    blur: tuple[float, ...] = ()  # filter after upsampling, in addition to `fir`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("generator input", self.input, ("const", "latent"))
        self._check(not self.blur or (len(self.blur) == 3 and is_filter(self.blur)), "the filter blur")
