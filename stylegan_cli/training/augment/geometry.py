"""Moving images about: exact copies of their pixels, and one affine warp between filters.

y(o) = x(M o - t),   o in pixels from the middle of the image

The warp reads an image of twice the size, made by the low-pass filter of a wavelet, and the same filter halves the
size of what was read: nothing aliases, and since the wavelet is orthogonal, a warp that moves nothing changes nothing.
Beyond its border an image goes on as in a mirror that stands on the outermost pixels.
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
_EARLY = 5.5 - sum(i * tap for i, tap in enumerate(_TAPS))  # what it delays less than a symmetric filter, in samples


def move(
    images: Tensor,  # [N, C, H, W]
    draw: Parameters,
    blit: bool,  # flips, quarter turns (half turns of what is not square), shifts by whole pixels
    general: bool,  # scaling, rotation, stretching, shifts by fractions of a pixel
) -> Tensor:  # [N, C, H, W]
    """In the order of the words above. Flips and turns are exact in any case; shifts too, unless there is a warp to
    make them: it then makes both at once, of the images that are to move, and leaves the others as they are."""
    sides = constant((images.shape[3], images.shape[2]), images.device, images.dtype)
    shift = (draw["shift"] * sides).round() if blit else torch.zeros_like(draw["shift"])  # [N, 2]
    if blit:
        images = copy_pixels(images, _turn(draw, images.shape[2] == images.shape[3]), 0 * shift if general else shift)
    if not general:
        return images
    inverse = _inverse(draw)
    offset = shift + (inverse @ (draw["glide"] * sides)[:, :, None])[:, :, 0]
    still = torch.eye(2, device=images.device, dtype=images.dtype)
    moved = ((inverse != still).flatten(1) | (offset != 0).repeat(1, 2)).any(1)
    return torch.where(moved[:, None, None, None], warp(images, inverse, offset), images)


def copy_pixels(
    images: Tensor,  # [N, C, H, W]
    turn: Tensor,  # [N, 2, 2] by quarters, and flips
    shift: Tensor,  # [N, 2] x and y, whole pixels
) -> Tensor:  # [N, C, H, W]
    """y(o) = x(turn (o - shift)), each pixel a copy of a pixel"""
    n, c, h, w = images.shape
    half = constant((((w - 1) / 2,), ((h - 1) / 2,)), images.device, images.dtype)[:, :, None]  # [2, 1, 1]
    at = _affine(turn, (turn @ shift[:, :, None])[:, :, 0], h, w)
    x, y = (_mirror(at, half) + half).round().long().unbind(1)  # [N, H, W]
    index = (y * w + x).flatten(1)[:, None].expand(-1, c, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def warp(
    images: Tensor,  # [N, C, H, W]
    inverse: Tensor,  # [N, 2, 2] M
    offset: Tensor,  # [N, 2] t: x and y, in pixels
) -> Tensor:  # [N, C, H, W]
    """y(o) = x(M o - t), through an image of twice the size"""
    n, c, h, w = images.shape
    taps = constant(_TAPS, images.device)
    x = mirror_pad(images, 6).reshape(1, n * c, h + 12, w + 12)  # filtered as channels, which is faster on a CPU
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
    """Where the fine image is read for each pixel of the next one: 5 more than the image has on each side, for the
    filter; what is read has 7. Within these 5 it is read as it is, and farther out from the mirror."""
    sides = constant(((w,), (h,)), inverse.device, inverse.dtype)[:, :, None]  # [2, 1, 1]
    # The filter's middle lies a bit beside that of the fine pixels: M turns about it, and it is where the mirrors are.
    at = _affine(inverse, 2 * offset + _EARLY * (1 - inverse.sum(2)), 2 * h + 10, 2 * w + 10)  # [N, 2, ...]
    at = torch.where(at.abs() <= sides + 5, at, _mirror(at, sides - 1, -_EARLY))
    return at.mul_(1 / (sides + 7)).permute(0, 2, 3, 1)


def _affine(
    matrix: Tensor,  # [N, 2, 2]
    offset: Tensor,  # [N, 2] x and y
    h: int,
    w: int,
) -> Tensor:  # [N, 2, h, w]
    """matrix o - offset, for every pixel o = (x, y), counted from the middle"""
    x, y = (torch.arange(side, device=matrix.device, dtype=matrix.dtype) - (side - 1) / 2 for side in (w, h))
    along = matrix[:, :, 0, None] * x  # [N, 2, w]
    down = matrix[:, :, 1, None] * y - offset[:, :, None]  # [N, 2, h]
    return along[:, :, None, :] + down[:, :, :, None]


def _mirror(
    at: Tensor,  # [N, 2, h, w]
    half: Tensor,  # [2, 1, 1]
    middle: float = 0.0,
) -> Tensor:  # [N, 2, h, w] in middle - half ... middle + half
    """Back and forth between two mirrors: middle - half + | (at - middle - half) mod 4 half - 2 half |"""
    return (at - (middle + half)).remainder_(4 * half).sub_(2 * half).abs_().add_(middle - half)


def mirror_pad(
    images: Tensor,  # [N, C, H, W]
    margin: int,
) -> Tensor:  # [N, C, H + 2 margin, W + 2 margin]
    """As F.pad's 'reflect', with margins of any size: after whole reflections the border is a mirror still."""
    x, y = margin, margin
    while x or y:
        by_y, by_x = min(y, images.shape[2] - 1), min(x, images.shape[3] - 1)
        images = F.pad(images, (by_x, by_x, by_y, by_y), mode="reflect")
        x, y = x - by_x, y - by_y
    return images


def _turn(
    draw: Parameters,
    square: bool,
) -> Tensor:  # [N, 2, 2]
    """The inverse of a flip and a turn after it: diag(+-1, 1) R(-90 k)"""
    quarters = (draw["turn"].abs() * 4).floor() if square else (draw["turn"].abs() * 2).floor() * 2
    turn = _rotation(quarters * (-torch.pi / 2)).round()
    across = 1 - 2 * (draw["flip"] > 0).to(turn.dtype)  # [N]
    return turn * torch.stack([across, torch.ones_like(across)], 1)[:, :, None]


def _inverse(draw: Parameters) -> Tensor:  # [N, 2, 2]
    """The inverse of scale s, rotation a, stretching e, rotation b: R(-a) diag(1 / e, e) R(-b) / s"""
    stretch = draw["stretch"][:, None]
    sides = torch.exp2(torch.cat([-stretch, stretch], 1) - draw["scale"][:, None])  # [N, 2]
    return (_rotation(-draw["rotate before"]) * sides[:, None, :]) @ _rotation(-draw["rotate after"])


def _rotation(angle: Tensor) -> Tensor:  # [N] -> [N, 2, 2]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
