"""Initial values of weights."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(
    *shape: int,
    divisor: float = 1.0,
    gain: float = 1.0,
) -> Tensor:  # [*shape]
    """Return random numbers from gain N(0, 1) / divisor. On the meta device, on which networks are built to be loaded,
    they have no values anyway; PyTorch would import its compiler for them, which takes longer than to load a small
    model."""
    x = torch.empty(shape)
    return x if x.is_meta else x.normal_().div_(divisor).mul_(gain)


def orthogonal(
    *shape: int,
) -> Tensor:  # [*shape]
    """Return a matrix [shape[0], others] with orthonormal rows or columns (Saxe et al. 2014). On the meta device, as
    `normal`."""
    x = normal(*shape)
    return x if x.is_meta else torch.nn.init.orthogonal_(x)
