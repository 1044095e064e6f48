"""Adaptive instance normalisation (Huang and Belongie 2017; Karras et al. 2019, equation 1).

AdaIN(x, y) = y_s (x - mean(x)) / sigma(x) + y_b,   (y_s - 1, y_b) = A w
"""

from __future__ import annotations

import torch
from torch import Tensor


def instance_norm(
    x: Tensor,  # [N, C, H, W]
    eps: float = 1e-8,
) -> Tensor:  # [N, C, H, W]
    """(x - mean) / sqrt(variance + eps), of each feature map of each picture."""
    scale, shift = _normal(x, eps)
    return torch.addcmul(shift, x, scale)


def adain(
    x: Tensor,  # [N, C, H, W]
    style: Tensor,  # [N, 2C] scale less one, then shift
    eps: float = 1e-8,
) -> Tensor:  # [N, C, H, W]
    """Give every feature map the deviation and the mean that the style says, whatever it had."""
    y = style.unflatten(1, (2, -1))[..., None, None].to(torch.promote_types(x.dtype, torch.float32))  # [N, 2, C, 1, 1]
    scale, shift = _normal(x, eps)
    gain = y[:, 0] + 1
    return torch.addcmul((shift * gain + y[:, 1]).to(x.dtype), x, (scale * gain).to(x.dtype))


def _normal(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:  # [N, C, 1, 1] each
    """Factor and offset that normalise x: one pass over it for both, a second one to apply them with the style."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(x, dim=[2, 3], correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    return scale, -mean * scale
