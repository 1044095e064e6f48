"""The image of a level: a bias, a clamp, and the upsampled image below, in every implementation."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.ops import add_skip, fir_filter


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 3, 4, 2), (1, 1), (1, 2, 3, 3, 2, 4)])
def test_equation(dense, random, taps):
    x, b, below, f = random(2, 3, 6, 8), random(3), random(2, 3, 3, 4), fir_filter(taps).double()
    k, expected = len(taps), x.numpy() + b.numpy()[:, None, None]
    padding = ((k + 1) // 2, (k - 2) // 2) * 2
    upsampled = dense.upfirdn(below, f, up=2, padding=padding, gain=4)
    for clamp in (None, 0.7):
        bound = math.inf if clamp is None else clamp
        y = add_skip(x, b, below, f, clamp)
        assert np.allclose(y, upsampled + expected.clip(-bound, bound), rtol=1e-12, atol=1e-12)
        assert np.allclose(add_skip(x, b, clamp=clamp), expected.clip(-bound, bound), rtol=1e-12)
    assert np.allclose(add_skip(x, None, below, f), upsampled + x.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("implementation")
def test_derivatives(random):
    inputs = [random(*s, requires_grad=True) for s in ((1, 2, 4, 6), (2,), (1, 2, 2, 3))]
    f = fir_filter([1, 3, 3, 1]).double()
    assert gradcheck(lambda *t: add_skip(*t, f, 0.8), inputs) and gradgradcheck(lambda *t: add_skip(*t, f, 0.8), inputs)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_are_summed_in_float32(random, dtype):
    x, b, below, f = random(2, 3, 6, 8).to(dtype), random(3).float(), random(2, 3, 3, 4).float(), fir_filter([1, 1])
    y = add_skip(x, b, below, f, 1.0)
    assert y.dtype == torch.float32
    with ops.use("reference"):
        assert torch.allclose(y.double(), add_skip(x.double(), b.double(), below.double(), f.double(), 1.0), atol=1e-6)
    last = add_skip(x.contiguous(memory_format=torch.channels_last), b, below, f, 1.0)
    assert torch.allclose(last, y, atol=1e-6)


def test_invalid_arguments(random):
    x, f = random(1, 3, 4, 4), fir_filter([1, 3, 3, 1])
    with pytest.raises(ValueError, match=r"b must have shape \[3\] for x of shape \[1, 3, 4, 4\], not \[2\]"):
        add_skip(x, random(2))
    for size in (3, 4):
        with pytest.raises(ValueError, match=rf"an image below of \[1, 3, 2, {size}\] does not fit"):
            add_skip(x, None, random(1, 3, 2, size), f)
    with pytest.raises(ValueError, match="an image below of"):
        add_skip(x[..., :3], None, random(1, 3, 2, 1), f)
    with pytest.raises(ValueError, match="needs a filter"):
        add_skip(x, None, random(1, 3, 2, 2))
