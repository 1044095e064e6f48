"""Bilinear sampling, differentiable any number of times.

y[o] = sum_i k(grid[o] - i) x[i],   k the product of two triangle functions, x = 0 outside

For a fixed grid this is linear in x: its gradient is the transposed map, whose gradient is the map again. PyTorch's
grid_sample, which does the work here, has only the first derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def grid_sample(
    x: Tensor,  # [N, C, H, W]
    grid: Tensor,  # [N, H', W', 2] sampling positions, x before y; -1 and 1 are the outer edges of the image
) -> Tensor:  # [N, C, H', W']
    """Sample images between their pixels (PyTorch's align_corners=False). The grid is a constant without a gradient.

    Raises ValueError if the grid requires a gradient.
    """
    if grid.requires_grad:
        raise ValueError("grid_sample has no gradient for the grid: detach it")
    return _Sample.apply(x, grid)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, grid):  # [N, C, H, W], [N, H', W', 2] -> [N, C, H', W']
        ctx.save_for_backward(grid)
        ctx.size = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        (grid,) = ctx.saved_tensors
        return _SampleAdjoint.apply(dy, grid, ctx.size), None


class _SampleAdjoint(torch.autograd.Function):
    """dx[i] = sum_o k(grid[o] - i) dy[o]"""

    @staticmethod
    def forward(ctx, dy, grid, size):  # [N, C, H', W'], [N, H', W', 2] -> [N, C, H, W]
        ctx.save_for_backward(grid)
        x = dy.new_zeros([]).expand(size)  # only its shape is read
        return torch.ops.aten.grid_sampler_2d_backward(dy, x, grid, 0, 0, False, [True, False])[0]

    @staticmethod
    def backward(ctx, *grads):
        (ddx,) = grads
        (grid,) = ctx.saved_tensors
        return _Sample.apply(ddx, grid), None, None
