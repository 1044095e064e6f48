"""Bilinear sampling against a sum over neighbors, and its higher derivatives."""

import numpy as np
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from stylegan_cli.ops import grid_sample


@pytest.fixture
def grid():
    """[2, 4, 6, 2], with positions outside the image."""
    return 1.3 * (2 * torch.rand(2, 4, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1)


def sample_slowly(x, grid):  # [N, C, H, W], [N, H', W', 2]
    n, c, h, w = x.shape
    y = np.zeros((n, c, *grid.shape[1:3]))
    for index in np.ndindex(n, *grid.shape[1:3]):
        gx, gy = (grid[index] + 1) * np.array([w, h]) / 2 - 0.5  # the first pixel's center is 0
        for iy, ix in np.ndindex(h, w):
            weight = max(0, 1 - abs(gx - ix)) * max(0, 1 - abs(gy - iy))
            y[index[0], :, index[1], index[2]] += weight * x[index[0], :, iy, ix]
    return y


def test_equation(random, grid):
    x = random(2, 3, 5, 7)
    assert np.allclose(grid_sample(x, grid).numpy(), sample_slowly(x.numpy(), grid.numpy()), rtol=0, atol=1e-12)


def test_derivatives(random, grid):
    x = random(2, 2, 3, 4, requires_grad=True)
    assert gradcheck(lambda x: grid_sample(x, grid), (x,))
    assert gradgradcheck(lambda x: grid_sample(x, grid), (x,))


def test_third_derivative(random, grid):
    """Of a nonlinear function, compared with autograd through a matrix of the same weights."""
    x = random(2, 1, 3, 4, requires_grad=True)
    units = torch.eye(12, dtype=torch.float64).view(12, 1, 3, 4)
    weights = torch.stack([grid_sample(units, g.expand(12, -1, -1, -1)).flatten(1) for g in grid])  # [2, 12, 24]
    results = []
    for y in (grid_sample(x, grid).flatten(2), x.flatten(2) @ weights):
        (g,) = grad(y.pow(4).sum(), x, create_graph=True)
        (g,) = grad(g.pow(2).sum(), x, create_graph=True)
        results.append(grad(g.pow(2).sum(), x)[0])
    assert torch.allclose(*results, rtol=1e-10)


def test_layouts_and_single_precision(random, grid):
    x, dy = random(2, 3, 5, 7), random(2, 3, 4, 6)
    y = grid_sample(x, grid)
    planes = grid.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # all x, then all y
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_(True)
    assert torch.allclose(grid_sample(last, planes), y)
    assert torch.allclose(grid_sample(x.float(), grid.float()), y.float(), atol=1e-5)
    x.requires_grad_(True)
    backward = [grad(grid_sample(a, b), a, dy)[0] for a, b in ((x, grid), (last, planes))]
    assert torch.allclose(*backward)


def test_the_grid_is_a_constant(random, grid):
    with pytest.raises(ValueError, match="no gradient for the grid"):
        grid_sample(random(2, 3, 5, 7), grid.requires_grad_(True))
