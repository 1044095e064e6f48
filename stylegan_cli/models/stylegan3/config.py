"""Configuration of a StyleGAN3 generator (Karras et al. 2021, "Alias-Free Generative Adversarial Networks")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ...config import base_size
from ...errors import MisuseError, SganError
from ..config import StyledConfig


@dataclass(frozen=True)
class StyleGAN3Config(StyledConfig):
    family: ClassVar[str] = "stylegan3"
    title: ClassVar[str] = "StyleGAN3"

    mapping_layers: int = 2
    w_avg_beta: float = 0.998
    channel_base: int = 32768  # feature maps: min(channel_base / (2 cutoff), channel_max)
    channel_max: int = 512
    kernel: int = 3  # side of the convolutions: 3 in StyleGAN3-T, 1 in StyleGAN3-R
    radial: bool = False  # whether downsampling filters are radially symmetric, as in StyleGAN3-R
    num_layers: int = 14  # without input and toRGB
    critical: int = 2  # last layers that are sampled critically, before toRGB
    octaves: bool = False  # rates double every two layers from 4 on, as before StyleGAN3: no first_ and last_ settings
    moves: bool = True  # whether a latent moves the input
    first_cutoff: float = 2.0  # of the input, in cycles per image
    first_stopband: float = 2**2.1
    last_stopband: float = 2**0.3  # relative to the last cutoff
    margin: int = 10  # pixels around the image, at every rate
    output_scale: float = 0.25
    filter_size: int = 6  # taps of a resampling filter for each sample of the lower rate
    lrelu_upsampling: int = 2  # the activation runs at this multiple of the higher rate of its layer
    half_levels: int = 4  # number of highest rates that run in half precision when the caller selects half precision
    conv_clamp: float | None = 256.0  # bound on the outputs of layers
    magnitude_kimg: float = 20.0  # half-life of the running means of magnitudes, in thousands of images

    @property
    def takes_transform(self) -> bool:
        return True

    @property
    def level(self) -> int:
        """The nominal resolution 4 * 2^n, whatever the aspect ratio."""
        return 4 << base_size(self.height, self.width)[2]

    def _name(self) -> str:
        variant = {(3, False): "-T", (1, True): "-R"}.get((self.kernel, self.radial), "")
        return f"{self.title}{variant}"

    def _details(self) -> list[str]:
        return [*super()._details(), f"channel base {self.channel_base}"]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(self.kernel in (1, 3), "kernel")
        self._check(0 <= self.critical < self.num_layers + self.octaves <= 65, "num_layers or critical")
        self._check(0.5 <= self.first_cutoff < self.first_stopband and self.last_stopband > 1, "a cutoff or stopband")
        self._check(0 <= self.margin <= 64 and 1 <= self.filter_size <= 16, "margin or filter_size")
        self._check(self.lrelu_upsampling in (1, 2, 4) and 0 <= self.half_levels <= 20, "lrelu_upsampling, half_levels")
        self._check(self.magnitude_kimg > 0 and math.isfinite(self.output_scale), "magnitude_kimg or output_scale")
        octave_layers = 2 * (self.level.bit_length() - 3) + 1
        if self.octaves and self.num_layers != octave_layers:
            raise SganError(f"{type(self).__name__}: octaves need {octave_layers} layers, not {self.num_layers}.")
        if self.level / 2 <= self.first_cutoff:
            raise MisuseError(
                f"{self.title} cannot generate images of {self.height}x{self.width} (height x width): their highest "
                f"frequency is not above the input's, {self.first_cutoff:g} cycles.",
                hint="Choose a larger --size.",
            )
        if min(self.channel_base // self.level, self.channel_max) < 1:
            raise MisuseError(
                f"A channel base of {self.channel_base} leaves no channels at {self.height}x{self.width}.",
                hint=f"Use --cbase {self.level} or more.",
            )
