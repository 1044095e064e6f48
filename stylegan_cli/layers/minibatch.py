"""Minibatch standard deviation (Karras et al. 2018, section 3): shows the discriminator how varied its batch is."""

from __future__ import annotations

import torch
from torch import Tensor


def append_minibatch_std(
    x: Tensor,  # [N, C, H, W]
    group: int | None,  # images per group; None: the whole batch
    channels: int = 1,  # feature maps to append; the features are split into this many sets
) -> Tensor:  # [N, C + channels, H, W]
    """Append the standard deviation over each group, averaged over features and pixels.

    With M = N / group groups, image n is in group n mod M, so distributing images to ranks by index modulo the number
    of ranks does not change the groups. Raises ValueError if the batch size or the features are not divisible.
    """
    n, c, h, w = x.shape
    g = min(group or n, n)
    if n % g or c % channels:
        raise ValueError(f"a batch of {n} does not divide into groups of {g}, or {c} features into {channels} sets")
    y = x.reshape(g, n // g, channels, c // channels, h, w)
    y = y.float() if x.dtype in (torch.float16, torch.bfloat16) else y
    y = (y - y.mean(0)).square().mean(0)  # [M, F, C/F, H, W] variance over the group
    y = (y + 1e-8).sqrt().mean([2, 3, 4])  # [M, F]
    y = y.to(x.dtype).reshape(-1, channels, 1, 1).repeat(g, 1, h, w)  # [N, F, H, W]
    return torch.cat([x, y], dim=1)
