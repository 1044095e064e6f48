"""What is done to pixels where they are: frequencies amplified, noise added, a part cut out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import mirror_pad
from .parameters import Parameters, constant

_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected in the bands of a natural image


def _bands() -> tuple[tuple[float, ...], ...]:  # [4][43]
    """Filters for frequencies up to 1/8, 1/4, 1/2 and 1 of the highest, whose sum is the identity.

    The autocorrelations of a wavelet's low-pass and high-pass filter (sym2: -1, 0, 9, 16, 9, 0, -1) split an image
    into two bands; the lower one is split again by the same filters, spread to twice the length.
    """
    odd = np.array([-1, 0, 9, 0, 9, 0, -1]) / 32
    half = np.array([0, 0, 0, 16, 0, 0, 0]) / 32
    low, bands = np.ones(1), []
    for step in (1, 2, 4):
        spread = np.zeros(6 * step + 1)
        spread[::step] = half - odd
        bands.append(np.convolve(low, spread))
        spread[::step] = half + odd
        low = np.convolve(low, spread)
    bands = [low, *bands[::-1]]
    return tuple(tuple(np.pad(band, (len(low) - len(band)) // 2).tolist()) for band in bands)


_BANDS = _bands()


def band_gains(draw: Parameters) -> Tensor:  # [N, 4]
    """g_j = t_j / prod_i sqrt(1 - l_i + l_i t_i^2): each amplification t keeps the power that is expected, of which
    band i has the part l_i."""
    gains = torch.exp2(torch.stack([draw[f"band {i}"] for i in range(4)], 1))
    power = constant(_POWER, gains.device, gains.dtype)
    return gains * (1 + power * (gains.square() - 1)).prod(1, keepdim=True).rsqrt()


def amplify_bands(
    images: Tensor,  # [N, C, H, W]
    draw: Parameters,
) -> Tensor:  # [N, C, H, W]
    """Each image by its own filter sum_j g_j band_j, along both sides."""
    n, c, h, w = images.shape
    taps = band_gains(draw) @ constant(_BANDS, images.device, images.dtype)  # [N, 43]
    taps = taps.repeat_interleave(c, 0)[:, None, :, None]  # [N C, 1, 43, 1]
    x = mirror_pad(images, taps.shape[2] // 2).reshape(1, n * c, h + 42, w + 42)
    x = F.conv2d(x, taps, groups=n * c)
    return F.conv2d(x, taps.mT, groups=n * c).view_as(images)


def add_noise(
    images: Tensor,  # [N, C, H, W]
    draw: Parameters,
) -> Tensor:  # [N, C, H, W]
    """x + |sigma| n"""
    noise = draw.normal("noise", images.shape[1:]).to(images.dtype)
    return torch.addcmul(images, draw["noise"].abs()[:, None, None, None], noise)


def cut_out(
    images: Tensor,  # [N, C, H, W]
    draw: Parameters,
) -> Tensor:  # [N, C, H, W]
    """0 in a rectangle of half the sides, wherever its center fell."""
    h, w = images.shape[2:]
    x, y, on = draw["cutout"].unbind(1)
    inside = in_window(x, w)[:, None, None, :] & in_window(y, h)[:, None, :, None] & (on != 0)[:, None, None, None]
    return images.masked_fill(inside, 0)


def in_window(
    center: Tensor,  # [N] -1 and 1 are the edges
    side: int,  # in pixels
) -> Tensor:  # [N, side] bool
    """The pixels of a window that is half as long as the side; what lies outside is lost."""
    center = ((center + 1) / 2)[:, None]
    pixel = torch.arange(side, device=center.device)
    return (pixel >= ((center - 1 / 4) * side).round()) & (pixel < ((center + 1 / 4) * side).round())
