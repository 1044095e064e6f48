"""Color transformations: one affine map of RGB per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .parameters import Parameters, constant

_GRAY = (1 / 3,) * 9  # v v^T, v = (1, 1, 1) / sqrt 3: projection onto the gray axis
_TURN = tuple(k / math.sqrt(3) for k in (0, -1, 1, 1, 0, -1, -1, 1, 0))  # [v x]: a quarter turn about the gray axis
_BASIS = {1: ((1,), (1,), (0,)), 3: ((1, 0, 0, 0, 1, 0, 0, 0, 1), _GRAY, _TURN)}  # identity, gray, turn


def recolor(
    images: Tensor,  # [N, C, H, W]; a fourth channel is unchanged
    params: Parameters,
) -> Tensor:  # [N, C, H, W]
    """Brightness, contrast, luma flip, hue, saturation: M (x + brightness), see `color_matrix`."""
    color, rest = images[:, :3], images[:, 3:]
    matrix = color_matrix(params, color.shape[1])
    shift = matrix[:, :1].sum(2, keepdim=True) * params["brightness"][:, None, None]  # M (b, b, b) is gray
    color = torch.baddbmm(shift, matrix, color.flatten(2)).view_as(color)
    return torch.cat([color, rest], 1) if rest.shape[1] else color


def color_matrix(
    params: Parameters,
    channels: int,  # 1 or 3
) -> Tensor:  # [N, channels, channels]
    """M = c (+-v v^T + s cos(h) (I - v v^T) + s sin(h) [v x]),   v = (1, 1, 1) / sqrt 3

    The gray axis is scaled by the contrast c, and by -1 if luma flips; the plane of colors orthogonal to it is rotated
    by the hue h and scaled by c and the saturation s. A single channel is gray.
    """
    contrast, saturation = torch.exp2(params["contrast"]), torch.exp2(params["saturation"])
    luma = 1 - 2 * (params["luma"] > 0).to(contrast.dtype)
    cos, sin = saturation * params["hue"].cos(), saturation * params["hue"].sin()
    weights = torch.stack([cos, luma - cos, sin], 1) * contrast[:, None]  # [N, 3] of identity, gray and turn
    basis = constant(_BASIS[channels], contrast.device, contrast.dtype)
    return (weights @ basis).view(-1, channels, channels)
