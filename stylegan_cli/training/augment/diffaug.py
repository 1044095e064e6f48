"""DiffAugment (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training")."""

from __future__ import annotations

import torch
from torch import Tensor

from ...sampling import counter
from .image import in_window


def diff_augment(
    images: Tensor,  # [N, C, H, W]; the colors of a fourth channel are unchanged
    seed: int,
    purpose: str,  # name of the use
    index: Tensor,  # [N] int64, global index of each image
) -> Tensor:  # [N, C, H, W]
    """Apply color, translation and cutout to every image."""
    u = counter.uniform(seed, f"{purpose}.diffaug", index, (7,)).to(images.dtype)
    images = _recolor(images, *u[:, :3].unbind(1))
    return _shift_and_cut(images, *u[:, 3:].unbind(1))


def _recolor(
    images: Tensor,  # [N, C, H, W]
    brightness: Tensor,  # [N] uniform in 0 ... 1, like the others
    saturation: Tensor,  # [N]
    contrast: Tensor,  # [N]
) -> Tensor:  # [N, C, H, W]
    """c s x + c (1 - s) gray + (1 - c) mean + b,   b in -0.5 ... 0.5, s in 0 ... 2, c in 0.5 ... 1.5

    gray is the mean of a pixel's colors, mean that of the whole image. Brightness shifts both, saturation scales the
    distance from gray, contrast the distance from mean.
    """
    color, rest = images[:, :3], images[:, 3:]
    b, s, c = (v[:, None, None, None] for v in (brightness - 0.5, 2 * saturation, contrast + 0.5))
    gray = color.mean(1, keepdim=True)
    mean = gray.mean([2, 3], keepdim=True)
    color = c * s * color + (c * (1 - s) * gray + ((1 - c) * mean + b))
    return torch.cat([color, rest], 1) if rest.shape[1] else color


def _shift_and_cut(
    images: Tensor,  # [N, C, H, W]
    x: Tensor,  # [N] uniform in 0 ... 1, like the others
    y: Tensor,  # [N]
    cut_x: Tensor,  # [N]
    cut_y: Tensor,  # [N]
) -> Tensor:  # [N, C, H, W]
    """Shift by up to 1/8 of the sides, padded with 0; then set a window of half the sides to 0."""
    n, c, h, w = images.shape
    (column, in_x), (row, in_y) = _shifted(x, w), _shifted(y, h)
    index = (row[:, :, None] * w + column[:, None, :]).flatten(1)  # [N, H W]
    images = images.flatten(2).gather(2, index[:, None].expand(-1, c, -1)).view_as(images)
    cut = in_window(2 * cut_x - 1, w)[:, None, :] & in_window(2 * cut_y - 1, h)[:, :, None]  # [N, H, W]
    return images.masked_fill((cut | ~(in_x[:, None, :] & in_y[:, :, None]))[:, None], 0)


def _shifted(
    u: Tensor,  # [N] uniform in 0 ... 1
    side: int,
) -> tuple[Tensor, Tensor]:  # [N, side] int64 source of each pixel, [N, side] bool whether it is inside the image
    limit = round(side / 8)
    shift = (u * (2 * limit + 1)).floor().long() - limit  # [N] -limit ... limit, equally likely
    source = torch.arange(side, device=u.device) - shift[:, None]
    return source.clamp(0, side - 1), (source >= 0) & (source < side)
