"""Transformations of pixel values: amplification of frequency bands, noise, cutout."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import mirror_pad
from .parameters import Parameters, constant

_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected power in each band of a natural image


def _bands() -> tuple[tuple[float, ...], ...]:  # [4][43]
    """Filters for frequencies up to 1/8, 1/4, 1/2 and 1 of the highest, which sum to the identity.

    The autocorrelations of a wavelet's low-pass and high-pass filter (sym2: -1, 0, 9, 16, 9, 0, -1) split an image
    into two bands; the lower one is split again by the same filters, dilated by 2.
    """
    odd = np.array([-1, 0, 9, 0, 9, 0, -1]) / 32
    half = np.array([0, 0, 0, 16, 0, 0, 0]) / 32
    low, bands = np.ones(1), []
    for step in (1, 2, 4):
        dilated = np.zeros(6 * step + 1)
        dilated[::step] = half - odd
        bands.append(np.convolve(low, dilated))
        dilated[::step] = half + odd
        low = np.convolve(low, dilated)
    bands = [low, *bands[::-1]]
    return tuple(tuple(np.pad(band, (len(low) - len(band)) // 2).tolist()) for band in bands)


_BANDS = _bands()


def band_gains(params: Parameters) -> Tensor:  # [N, 4]
    """g_j = t_j / prod_i sqrt(1 - l_i + l_i t_i^2): each amplification t preserves the expected power, of which band i
    has the fraction l_i."""
    gains = torch.exp2(torch.stack([params[f"band {i}"] for i in range(4)], 1))
    power = constant(_POWER, gains.device, gains.dtype)
    return gains * (1 + power * (gains.square() - 1)).prod(1, keepdim=True).rsqrt()


def amplify_bands(
    images: Tensor,  # [N, C, H, W]
    params: Parameters,
) -> Tensor:  # [N, C, H, W]
    """Filter each image with its own sum_j g_j band_j, along both axes."""
    n, c, h, w = images.shape
    taps = band_gains(params) @ constant(_BANDS, images.device, images.dtype)  # [N, 43]
    taps = taps.repeat_interleave(c, 0)[:, None, :, None]  # [N C, 1, 43, 1]
    x = mirror_pad(images, taps.shape[2] // 2).reshape(1, n * c, h + 42, w + 42)
    x = F.conv2d(x, taps, groups=n * c)
    return F.conv2d(x, taps.mT, groups=n * c).view_as(images)


def add_noise(
    images: Tensor,  # [N, C, H, W]
    params: Parameters,
) -> Tensor:  # [N, C, H, W]
    """x + |sigma| n"""
    noise = params.normal("noise", images.shape[1:]).to(images.dtype)
    return torch.addcmul(images, params["noise"].abs()[:, None, None, None], noise)


def cut_out(
    images: Tensor,  # [N, C, H, W]
    params: Parameters,
) -> Tensor:  # [N, C, H, W]
    """Set a rectangle of half the sides to 0, around a random center."""
    h, w = images.shape[2:]
    x, y, on = params["cutout"].unbind(1)
    inside = in_window(x, w)[:, None, None, :] & in_window(y, h)[:, None, :, None] & (on != 0)[:, None, None, None]
    return images.masked_fill(inside, 0)


def in_window(
    center: Tensor,  # [N]; -1 and 1 are the edges
    side: int,  # in pixels
) -> Tensor:  # [N, side] bool
    """Return which pixels are in a window half as long as the side, clipped at the edges."""
    center = ((center + 1) / 2)[:, None]
    pixel = torch.arange(side, device=center.device)
    return (pixel >= ((center - 1 / 4) * side).round()) & (pixel < ((center + 1 / 4) * side).round())
