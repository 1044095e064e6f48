"""Geometric transformations: exact pixel copies, and an affine warp between filters.

y(o) = x(M o - t),   o in pixels from the center of the image

The warp samples an image that was upsampled by 2 with the low-pass filter of a wavelet, and the same filter
downsamples the result: nothing aliases, and as the wavelet is orthogonal, the identity leaves images unchanged.
Outside its border an image is reflected at the outermost pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...ops import grid_sample, upfirdn2d
from .parameters import Parameters, constant

# The least asymmetric wavelet with six vanishing moments (Daubechies 1992, "Ten Lectures on Wavelets", table 6.3).
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_TAPS = tuple(tap / sum(SYM6) for tap in SYM6)
_ADVANCE = 5.5 - sum(i * tap for i, tap in enumerate(_TAPS))  # delay of a symmetric filter minus its own


def transform(
    images: Tensor,  # [N, C, H, W]
    params: Parameters,
    blit: bool,  # flips, quarter turns (half turns if not square), shifts by whole pixels
    general: bool,  # scaling, rotation, stretching, shifts by fractions of a pixel
) -> Tensor:  # [N, C, H, W]
    """Apply the transformations in the order of the comments above. Flips and turns are always exact. With `general`,
    one warp does all shifts, and images that need no warp are unchanged."""
    sides = constant((images.shape[3], images.shape[2]), images.device, images.dtype)
    shift = (params["shift"] * sides).round() if blit else torch.zeros_like(params["shift"])  # [N, 2]
    if blit:
        images = copy_pixels(images, _turn(params, images.shape[2] == images.shape[3]), 0 * shift if general else shift)
    if not general:
        return images
    inverse = _inverse(params)
    offset = shift + (inverse @ (params["glide"] * sides)[:, :, None])[:, :, 0]
    identity = torch.eye(2, device=images.device, dtype=images.dtype)
    is_warped = ((inverse != identity).flatten(1) | (offset != 0).repeat(1, 2)).any(1)
    return torch.where(is_warped[:, None, None, None], warp(images, inverse, offset), images)


def copy_pixels(
    images: Tensor,  # [N, C, H, W]
    turn: Tensor,  # [N, 2, 2] quarter turns and flips
    shift: Tensor,  # [N, 2] x and y, whole pixels
) -> Tensor:  # [N, C, H, W]
    """y(o) = x(turn (o - shift)), copying pixels."""
    n, c, h, w = images.shape
    half = constant((((w - 1) / 2,), ((h - 1) / 2,)), images.device, images.dtype)[:, :, None]  # [2, 1, 1]
    positions = _affine(turn, (turn @ shift[:, :, None])[:, :, 0], h, w)
    x, y = (_reflect(positions, half) + half).round().long().unbind(1)  # [N, H, W]
    index = (y * w + x).flatten(1)[:, None].expand(-1, c, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def warp(
    images: Tensor,  # [N, C, H, W]
    inverse: Tensor,  # [N, 2, 2] M
    offset: Tensor,  # [N, 2] t: x and y, in pixels
) -> Tensor:  # [N, C, H, W]
    """y(o) = x(M o - t), sampling an image of twice the size."""
    n, c, h, w = images.shape
    taps = constant(_TAPS, images.device)
    x = mirror_pad(images, 6).reshape(1, n * c, h + 12, w + 12)  # images as channels, which is faster on a CPU
    fine = upfirdn2d(x, taps, up=2, padding=(1, 0, 1, 0), gain=4).view(n, c, 2 * h + 14, 2 * w + 14)
    fine = grid_sample(fine, _fine_grid(inverse, offset, h, w))  # [N, C, 2H + 10, 2W + 10]
    return upfirdn2d(fine.flatten(0, 1)[None], taps, down=2, flip=True).view_as(images)


@torch.no_grad()
def _fine_grid(
    inverse: Tensor,  # [N, 2, 2]
    offset: Tensor,  # [N, 2] in pixels
    h: int,
    w: int,
) -> Tensor:  # [N, 2H + 10, 2W + 10, 2] for grid_sample
    """Return where to sample the upsampled image, which has a margin of 7 pixels, for a result with the margin of 5
    that the filter needs. Positions within 5 pixels of the image are used as they are, those beyond are reflected."""
    sides = constant(((w,), (h,)), inverse.device, inverse.dtype)[:, :, None]  # [2, 1, 1]
    # The filter is centered slightly beside the upsampled pixels: M and the reflections are relative to its center.
    positions = _affine(inverse, 2 * offset + _ADVANCE * (1 - inverse.sum(2)), 2 * h + 10, 2 * w + 10)  # [N, 2, ...]
    positions = torch.where(positions.abs() <= sides + 5, positions, _reflect(positions, sides - 1, -_ADVANCE))
    return positions.mul_(1 / (sides + 7)).permute(0, 2, 3, 1)


def _affine(
    matrix: Tensor,  # [N, 2, 2]
    offset: Tensor,  # [N, 2] x and y
    h: int,
    w: int,
) -> Tensor:  # [N, 2, h, w]
    """matrix o - offset, for every pixel o = (x, y), relative to the center."""
    x, y = (torch.arange(side, device=matrix.device, dtype=matrix.dtype) - (side - 1) / 2 for side in (w, h))
    along = matrix[:, :, 0, None] * x  # [N, 2, w]
    down = matrix[:, :, 1, None] * y - offset[:, :, None]  # [N, 2, h]
    return along[:, :, None, :] + down[:, :, :, None]


def _reflect(
    positions: Tensor,  # [N, 2, h, w]
    half: Tensor,  # [2, 1, 1]
    middle: float = 0.0,
) -> Tensor:  # [N, 2, h, w] in middle - half ... middle + half
    """Reflect at both ends of the range: middle - half + | (positions - middle - half) mod 4 half - 2 half |."""
    return (positions - (middle + half)).remainder_(4 * half).sub_(2 * half).abs_().add_(middle - half)


def mirror_pad(
    images: Tensor,  # [N, C, H, W]
    margin: int,
) -> Tensor:  # [N, C, H + 2 margin, W + 2 margin]
    """Like F.pad with mode 'reflect', but with margins of any size."""
    x, y = margin, margin
    while x or y:
        pad_y, pad_x = min(y, images.shape[2] - 1), min(x, images.shape[3] - 1)
        images = F.pad(images, (pad_x, pad_x, pad_y, pad_y), mode="reflect")
        x, y = x - pad_x, y - pad_y
    return images


def _turn(
    params: Parameters,
    square: bool,
) -> Tensor:  # [N, 2, 2]
    """The inverse of a flip followed by a turn: diag(+-1, 1) R(-90 k)."""
    quarters = (params["turn"].abs() * 4).floor() if square else (params["turn"].abs() * 2).floor() * 2
    turn = _rotation(quarters * (-torch.pi / 2)).round()
    flip = 1 - 2 * (params["flip"] > 0).to(turn.dtype)  # [N]
    return turn * torch.stack([flip, torch.ones_like(flip)], 1)[:, :, None]


def _inverse(params: Parameters) -> Tensor:  # [N, 2, 2]
    """The inverse of scale s, rotation a, stretching e, rotation b: R(-a) diag(1 / e, e) R(-b) / s."""
    stretch = params["stretch"][:, None]
    sides = torch.exp2(torch.cat([-stretch, stretch], 1) - params["scale"][:, None])  # [N, 2]
    return (_rotation(-params["rotate before"]) * sides[:, None, :]) @ _rotation(-params["rotate after"])


def _rotation(angle: Tensor) -> Tensor:  # [N] -> [N, 2, 2]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
