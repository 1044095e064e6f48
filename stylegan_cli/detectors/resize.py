"""TensorFlow 1's way of resizing images: bilinear, without antialiasing, aligned to the top left corner."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_like_tensorflow(
    x: Tensor,  # [N, C, H, W] uint8
    size: int,  # new height and width
) -> Tensor:  # [N, C, size, size] float32
    """Resize like TensorFlow 1's `tf.image.resize_bilinear(x, [size, size], align_corners=False)`.

    Output pixel i is at i * H / size of the input, so the image shifts by up to half a pixel, and reducing skips
    pixels (Parmar, Zhang and Zhu 2022 show the effect on FID). Published results depend on this.
    """
    return _interpolate(_interpolate(x, 3, size), 2, size)


def _interpolate(x: Tensor, dim: int, size: int) -> Tensor:
    scale = torch.tensor(x.shape[dim] / size, dtype=torch.float32)  # multiplied in float32, like TensorFlow
    position = torch.arange(size, dtype=torch.float32) * scale
    low = position.long()
    high = (low + 1).clamp_max(x.shape[dim] - 1)
    fraction = (position - low).to(x.device).view(-1, *[1] * (3 - dim))
    a, b = (x.index_select(dim, index.to(x.device)).float() for index in (low, high))
    return a + (b - a) * fraction
