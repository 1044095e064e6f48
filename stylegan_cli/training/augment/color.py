"""Colors: one affine map of RGB for each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .parameters import Parameters, constant

_GRAY = (1 / 3,) * 9  # v v^T, v = (1, 1, 1) / sqrt 3: onto the axis of grays
_TURN = tuple(k / math.sqrt(3) for k in (0, -1, 1, 1, 0, -1, -1, 1, 0))  # v x: a quarter turn about it
_BASIS = {1: ((1,), (1,), (0,)), 3: ((1, 0, 0, 0, 1, 0, 0, 0, 1), _GRAY, _TURN)}  # identity, gray, turn


def recolor(
    images: Tensor,  # [N, C, H, W]; of four channels the last one stays
    draw: Parameters,
) -> Tensor:  # [N, C, H, W]
    """Brightness, contrast, luma flip, hue, saturation: M (x + brightness), see `color_matrix`."""
    color, rest = images[:, :3], images[:, 3:]
    matrix = color_matrix(draw, color.shape[1])
    shift = matrix[:, :1].sum(2, keepdim=True) * draw["brightness"][:, None, None]  # M (b, b, b) is a gray
    color = torch.baddbmm(shift, matrix, color.flatten(2)).view_as(color)
    return torch.cat([color, rest], 1) if rest.shape[1] else color


def color_matrix(
    draw: Parameters,
    channels: int,  # 1 or 3
) -> Tensor:  # [N, channels, channels]
    """M = c (+-v v^T + s cos(h) (I - v v^T) + s sin(h) [v x]),   v = (1, 1, 1) / sqrt 3

    The grays are scaled by the contrast c, and by -1 if luma flips; what remains, the plane of colors, is rotated by
    the hue h and scaled by c and the saturation s. An image of one channel is a gray.
    """
    contrast, saturation = torch.exp2(draw["contrast"]), torch.exp2(draw["saturation"])
    luma = 1 - 2 * (draw["luma"] > 0).to(contrast.dtype)
    cos, sin = saturation * draw["hue"].cos(), saturation * draw["hue"].sin()
    weights = torch.stack([cos, luma - cos, sin], 1) * contrast[:, None]  # [N, 3] of identity, gray and turn
    basis = constant(_BASIS[channels], contrast.device, contrast.dtype)
    return (weights @ basis).view(-1, channels, channels)
