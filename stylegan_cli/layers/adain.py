"""Adaptive instance normalization (Huang and Belongie 2017; Karras et al. 2019, equation 1).

AdaIN(x, y) = y_s (x - mean(x)) / sigma(x) + y_b,   (y_s - 1, y_b) = A w
"""

from __future__ import annotations

import torch
from torch import Tensor


def adain(
    x: Tensor,  # [N, C, H, W]
    style: Tensor,  # [N, 2C] scale - 1, then shift
    eps: float = 1e-8,
) -> Tensor:  # [N, C, H, W]
    """Normalize each feature map, then apply the scale and shift of the style."""
    dtype = x.dtype
    x = x.to(torch.promote_types(dtype, torch.float32))
    # Two means, because torch.var_mean takes 8 times as long on the CPU in channels_last.
    x = x - x.mean([2, 3], keepdim=True)
    scale = (x.square().mean([2, 3], keepdim=True) + eps).rsqrt()  # [N, C, 1, 1]
    y = style.unflatten(1, (2, -1))[..., None, None].to(x.dtype)  # [N, 2, C, 1, 1]
    return torch.addcmul(y[:, 1], x, scale * (y[:, 0] + 1)).to(dtype)
