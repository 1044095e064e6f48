"""Average power spectrum of images (Karras et al. 2021, "Alias-Free Generative Adversarial Networks", appendix A):
S = E |FFT(w (x - μ) / σ)|², the mean over images and channels.

μ and σ are the mean and standard deviation of all pixels of a dataset. w is a Kaiser window (β = 8) in both directions,
scaled so that white noise with deviation σ is at 1, or 0 dB. The image is padded with zeros to a multiple of its size,
which interpolates the spectrum.

One pass is enough: with F the transform of w (x - c) for a constant c, and W that of w,
S σ² = E |F|² - 2 (μ - c) Re(E F W*) + (μ - c)² |W|².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..ops import to_float64
from ..ops.dispatch import has_float64

PADDING = 4  # the padded image is larger by this factor
_BETA = 8.0  # of the Kaiser window
_MIDDLE = 127.5  # c of the equation above, near the mean of most images
_FLOOR = 1e-12  # -120 dB: below, there is only rounding


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The average power spectrum of a dataset's or a model's images."""

    name: str
    power: np.ndarray  # [4 H, 4 W] float64, in the order of a FFT: frequency 0 first
    height: int  # of the images
    width: int
    num: int  # of images
    mean: float  # of the pixels that the spectrum is relative to, from 0 to 255
    std: float

    @property
    def decibels(self) -> np.ndarray:  # [4 H, 4 W]
        return 10 * np.log10(np.maximum(self.power, _FLOOR))

    @property
    def horizontal(self) -> tuple[np.ndarray, np.ndarray]:  # [n] cycles per image width, [n] dB
        """The slice from frequency 0 to the right, up to the highest frequency of the pixels."""
        bins = np.arange(PADDING * self.width // 2 + 1)
        return bins / PADDING, self.decibels[0, bins]

    @property
    def diagonal(self) -> tuple[np.ndarray, np.ndarray]:  # [n] cycles per image width, [n] dB
        """The slice at 45 degrees."""
        common = math.gcd(self.height, self.width)
        steps = np.arange(PADDING * common // 2 + 1)
        rows, columns = steps * (self.height // common), steps * (self.width // common)
        return columns * math.sqrt(2) / PADDING, self.decibels[rows, columns]


class PowerSums:
    """The sums over images that a spectrum is computed from."""

    def __init__(
        self,
        height: int,  # of the images
        width: int,
        device: torch.device | str = "cpu",  # of the calculation, if it has float64
    ):
        device = torch.device(device)
        device = device if has_float64(device) else torch.device("cpu")
        self.height, self.width, self.num, self.values = height, width, 0, 0
        self.window = (_window(height)[:, None] * _window(width)).to(device)
        self.total = self.squares = 0.0  # of all values - c
        shape = PADDING * height, PADDING * width // 2 + 1
        self.power = torch.zeros(shape, dtype=torch.float64, device=device)  # sum of |F|²
        self.images = torch.zeros(height, width, dtype=torch.float64, device=device)  # sum of x - c: F is linear

    def add(
        self,
        images: Tensor,  # uint8 [N, C, H, W]
    ) -> None:
        values = to_float64(images).to(self.window.device) - _MIDDLE
        self.num, self.values = self.num + len(images), self.values + values.numel()
        self.total, self.squares = self.total + float(values.sum()), self.squares + float(values.square().sum())
        for image in values:  # one at a time: the padded transform is large
            self.power += torch.view_as_real(self._transform(image)).square().sum(-1).mean(0)
        self.images += values.mean(1).sum(0)

    @property
    def moments(self) -> tuple[float, float]:  # mean and standard deviation of all values, from 0 to 255
        mean = self.total / self.values
        return mean + _MIDDLE, math.sqrt(max(self.squares / self.values - mean**2, 0.0))

    def spectrum(
        self,
        name: str,
        mean: float,  # μ and σ of the equation above
        std: float,
    ) -> Spectrum:
        shift = mean - _MIDDLE
        average, window = self._transform(torch.stack([self.images / self.num, torch.ones_like(self.images)]))
        cross = (average * window.conj()).real
        half = self.power / self.num - 2 * shift * cross + shift**2 * window.abs().square()
        power = _whole(half.clamp(min=0) / std**2, PADDING * self.width)
        return Spectrum(name, power.cpu().numpy(), self.height, self.width, self.num, mean, std)

    def _transform(self, image: Tensor) -> Tensor:  # [C, H, W] -> [C, 4 H, 2 W + 1]
        size = PADDING * self.height, PADDING * self.width
        return torch.fft.rfft2(image * self.window, size)


def _window(size: int) -> Tensor:  # [size], with a sum of squares of 1
    window = torch.kaiser_window(size, periodic=False, beta=_BETA, dtype=torch.float64)
    return window / window.square().sum().sqrt()


def _whole(
    half: Tensor,  # [H, W // 2 + 1], spectrum of real images
    width: int,
) -> Tensor:  # [H, W]
    """Add the other half, which is the same turned by 180 degrees."""
    other = half[:, 1 : (width + 1) // 2].flip(1)
    return torch.cat([half, other.roll(-1, 0).flip(0)], 1)
