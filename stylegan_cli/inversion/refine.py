"""Class maps of a reconstruction, moved to the edges of the image itself: a guided filter with a guide in color (He et
al. 2013, "Guided Image Filtering", section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.images import to_rgb

_RADIUS = 1 / 12  # of the windows, of the shorter side
_EPSILON = 0.003  # variance of colors, -1 to 1, below which a window has no edge


def refine(
    logits: Tensor,  # [N, K, H, W] of the reconstruction
    images: Tensor,  # [N, C, H, W] in [-1, 1]
) -> Tensor:  # [N, K, H, W] probabilities, about
    """In each window, the probability of a class is approximated by a linear function of the image's colors."""
    p, guide = logits.softmax(1), to_rgb(images)
    radius = max(round(min(images.shape[2:]) * _RADIUS), 1)
    mean, mean_p = _average(guide, radius), _average(p, radius)
    products = _average((guide[:, :, None] * p[:, None]).flatten(1, 2), radius).unflatten(1, (3, p.shape[1]))
    covariance = products - mean[:, :, None] * mean_p[:, None]  # [N, 3, K, H, W]
    squares = _average((guide[:, :, None] * guide[:, None]).flatten(1, 2), radius).unflatten(1, (3, 3))
    variance = squares - mean[:, :, None] * mean[:, None] + _EPSILON * torch.eye(3, device=p.device)[..., None, None]
    to_front, back = (0, 3, 4, 1, 2), (0, 3, 4, 1, 2)
    slope = torch.linalg.solve(variance.permute(to_front), covariance.permute(to_front)).permute(back)
    offset = mean_p - (slope * mean[:, :, None]).sum(1)
    slope = _average(slope.flatten(1, 2), radius).unflatten(1, (3, p.shape[1]))
    return (slope * guide[:, :, None]).sum(1) + _average(offset, radius)


def _average(x: Tensor, radius: int) -> Tensor:  # [N, C, H, W]
    """The mean of the window around each pixel, as far as it is in the image."""
    size = 2 * radius + 1
    x = F.avg_pool2d(x, (1, size), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(x, (size, 1), 1, (radius, 0), count_include_pad=False)
