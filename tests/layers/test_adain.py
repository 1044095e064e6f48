"""Instance normalization, AdaIN and blur compared with closed forms, including first and second derivatives."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli.layers import adain
from stylegan_cli.ops import blur2d, fir_filter


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1


@pytest.fixture
def style():
    return torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def instance_norm(x):
    """AdaIN with a scale of one and a shift of zero."""
    return adain(x, x.new_zeros(x.shape[0], 2 * x.shape[1]))


def test_instance_norm(x):
    y = instance_norm(x)
    for n in range(2):
        for c in range(3):
            m = x[n, c]
            expected = (m - m.mean()) / ((m - m.mean()).square().mean() + 1e-8).sqrt()
            assert torch.allclose(y[n, c], expected, atol=1e-12)


def test_adain_sets_the_mean_and_deviation_of_each_feature_map(x, style):
    y = adain(x, style)
    assert torch.allclose(y.mean([2, 3]), style[:, 3:], atol=1e-12)
    assert torch.allclose(y.std([2, 3], correction=0), (style[:, :3] + 1).abs(), atol=1e-8)
    assert torch.allclose(adain(5 * x - 7, style), y, atol=1e-8), "independent of those of the input"


def test_the_derivative_of_instance_norm(x):
    """dx = (dy - mean(dy) - y mean(dy y)) / sigma"""
    x, dy = x.requires_grad_(True), torch.randn_like(x)
    y = instance_norm(x)
    (dx,) = torch.autograd.grad(y, x, dy)
    mean = lambda t: t.mean([2, 3], keepdim=True)  # noqa: E731
    sigma = (x.var([2, 3], correction=0, keepdim=True) + 1e-8).sqrt()
    assert torch.allclose(dx, (dy - mean(dy) - y * mean(dy * y)) / sigma, atol=1e-10)


def test_derivatives(x, style):
    x, style = x.requires_grad_(True), style.requires_grad_(True)
    assert gradcheck(adain, (x, style)) and gradgradcheck(adain, (x, style))
    assert gradcheck(instance_norm, (x,)) and gradgradcheck(instance_norm, (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(x, style, dtype):
    """The error is at most that of rounding the input and the output."""
    low = adain(x.to(dtype), style.to(dtype))
    assert low.dtype == dtype
    exact = adain(x.to(dtype).double(), style.to(dtype).double())
    assert (low.double() - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()


def test_a_constant_feature_map_becomes_the_shift(style):
    y = adain(torch.full((2, 3, 4, 4), 7.0, dtype=torch.float64), style)
    assert torch.allclose(y, style[:, 3:, None, None].expand_as(y))


def test_blur(x):
    """y[i, j] = sum a[k] a[l] x[i + k - 1, j + l - 1] with a = 1/4, 1/2, 1/4 and zero padding."""
    f = fir_filter([1, 2, 1])
    padded = torch.nn.functional.pad(x, [1, 1, 1, 1])
    expected = sum(
        a * b * padded[:, :, k : k + 4, m : m + 5]
        for k, a in enumerate((0.25, 0.5, 0.25))
        for m, b in enumerate((0.25, 0.5, 0.25))
    )
    assert torch.allclose(blur2d(x, f), expected, atol=1e-12)
    x = x.requires_grad_(True)
    assert gradcheck(lambda t: blur2d(t, f), (x,)) and gradgradcheck(lambda t: blur2d(t, f), (x,))
