"""Random regions of images: holes to fill, and what is seen of class maps.

Every random number is a function of (seed, purpose, index of the image), see `counter`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import counter

_STROKE = 0.06  # half the width of a stroke, of the image's side
UNKNOWN_LEVEL = 255  # level of pixels of a class map whose class is not known


def holes(
    size: Any,  # (H, W)
    seed: int,
    index: Tensor,  # [N] int64
) -> Tensor:  # [N, 1, H, W]: 1 for given pixels, 0 in the hole
    """Random holes: a rectangle of a quarter to three quarters of each side, four strokes, or one half."""
    height, width = size
    u = counter.uniform(seed, "inpaint", index, (24,))[:, :, None, None]
    y = (torch.arange(height, device=index.device)[:, None] + 0.5) / height
    x = (torch.arange(width, device=index.device)[None] + 0.5) / width
    tall, wide = 0.25 + 0.5 * u[:, 0], 0.25 + 0.5 * u[:, 1]
    rectangle = _inside(y, (1 - tall) * u[:, 2], tall) & _inside(x, (1 - wide) * u[:, 3], wide)
    strokes = torch.zeros_like(rectangle)
    for k in range(4, 20, 4):
        strokes = strokes | _near(x, y, *(u[:, k + j] for j in range(4)))
    side = torch.where(u[:, 20] < 0.5, x.expand(height, width), y.expand(height, width))
    half = torch.where(u[:, 21] < 0.5, side < 0.5, side > 0.5)
    kind = u[:, 22]
    hole = torch.where(kind < 0.4, rectangle, torch.where(kind < 0.8, strokes, half))
    return (~hole).float()[:, None]


def class_levels(
    images: Tensor,  # [N, C, H, W] in [-1, 1], the last channel of which are classes as levels
) -> Tensor:  # [N, H, W] int64
    return ((images[:, -1] + 1) * 127.5).round().long()


def revealed(
    maps: Tensor,  # [N, H, W] int64, below `classes`
    classes: int,
    seed: int,
    index: Tensor,  # [N] int64
) -> Tensor:  # [N, H, W] bool
    """What is seen of sparse class maps: of three fifths one to ten points of each class, of a fifth four strokes and a
    point of each class, of the rest all. Points are disks of a hundredth of the side."""
    height, width = maps.shape[1:]
    u = counter.uniform(seed, "mask", index, (18,))[:, :, None, None]
    flat = maps.flatten(1)
    position = counter.uniform(seed, "mask.points", index, (height * width,))
    order = (flat + position / 2).argsort(1)  # by class, then at random
    found = flat.gather(1, order)
    counts = F.one_hot(found, classes).sum(1)
    rank = torch.arange(height * width, device=maps.device) - (counts.cumsum(1) - counts).gather(1, found)
    num = torch.where(u[:, 0, 0] < 0.6, 1 + (u[:, 1, 0] * 10).floor(), 1)
    points = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, rank < num).reshape(maps.shape)
    if radius := round(min(height, width) / 100):
        seen = F.one_hot(torch.where(points, maps, classes), classes + 1)[..., :classes].permute(0, 3, 1, 2).float()
        spread = F.max_pool2d(seen, 2 * radius + 1, 1, radius)
        points = spread.gather(1, maps[:, None])[:, 0] > 0
    y = (torch.arange(height, device=maps.device)[:, None] + 0.5) / height
    x = (torch.arange(width, device=maps.device)[None] + 0.5) / width
    strokes = torch.zeros_like(points)
    for k in range(2, 18, 4):
        strokes = strokes | _near(x, y, *(u[:, k + j] for j in range(4)))
    kind = u[:, 0]
    return points | (strokes & (kind >= 0.6) & (kind < 0.8)) | (kind >= 0.8)


def _inside(position: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (position >= start) & (position < start + length)


def _near(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
    """Whether a point lies near the segment between two points."""
    dx, dy = x1 - x0, y1 - y0
    t = (((x - x0) * dx + (y - y0) * dy) / (dx.square() + dy.square()).clamp_min(1e-6)).clamp(0, 1)
    return (x - x0 - t * dx).square() + (y - y0 - t * dy).square() < _STROKE**2
