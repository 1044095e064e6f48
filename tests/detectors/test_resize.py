"""TensorFlow 1's resizing, compared with its definition."""

import numpy as np
import pytest
import torch

from stylegan_cli.detectors.resize import resize_like_tensorflow


def by_definition(x, size):
    """Compute each output pixel separately, in float32 like TensorFlow's kernel (x: uint8 [H, W])."""
    height, width = x.shape
    x = x.astype(np.float32)
    scale_y, scale_x = np.float32(height / size), np.float32(width / size)
    out = np.empty((size, size), np.float32)
    for i in range(size):
        y = np.float32(i) * scale_y
        top, dy = int(y), y - np.float32(int(y))
        bottom = min(top + 1, height - 1)
        for j in range(size):
            p = np.float32(j) * scale_x
            left, dx = int(p), p - np.float32(int(p))
            right = min(left + 1, width - 1)
            upper = x[top, left] + (x[top, right] - x[top, left]) * dx
            lower = x[bottom, left] + (x[bottom, right] - x[bottom, left]) * dx
            out[i, j] = upper + (lower - upper) * dy
    return out


@pytest.mark.parametrize("shape", [(7, 5), (31, 31), (64, 1), (1, 40), (100, 77)])
def test_equals_the_definition(shape):
    x = torch.randint(0, 256, (1, 1, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(resize_like_tensorflow(x, 31)[0, 0].numpy(), by_definition(x[0, 0].numpy(), 31))


def test_top_left_corner_is_the_origin():
    x = torch.tensor([[[[0, 100]]]], dtype=torch.uint8)
    assert resize_like_tensorflow(x, 4)[0, 0, 0].tolist() == [0, 50, 100, 100]
