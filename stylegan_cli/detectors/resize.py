"""The way in which TensorFlow 1 changes an image's size: bilinear, without antialiasing, the corner as the origin."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_like_tensorflow(
    x: Tensor,  # [N, C, H, W] uint8
    size: int,  # height and width after it
) -> Tensor:  # [N, C, size, size] float32
    """`tf.image.resize_bilinear(x, [size, size], align_corners=False)` of TensorFlow 1, half_pixel_centers off.

    Output pixel i lies at i * H / size of the input, so that the image moves by up to half a pixel and, reduced, is
    read only here and there (Parmar, Zhang and Zhu 2022 show what that does to FID). The published figures have it.
    """
    return _interpolate(_interpolate(x, 3, size), 2, size)


def _interpolate(x: Tensor, dim: int, size: int) -> Tensor:
    scale = torch.tensor(x.shape[dim] / size, dtype=torch.float32)  # multiplied in float32, as there
    place = torch.arange(size, dtype=torch.float32) * scale
    low = place.long()
    high = (low + 1).clamp_max(x.shape[dim] - 1)
    part = (place - low).to(x.device).view(-1, *[1] * (3 - dim))
    a, b = (x.index_select(dim, index.to(x.device)).float() for index in (low, high))
    return a + (b - a) * part
