"""Convolution with resampling against one dense kernel, and its custom gradients against PyTorch's."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.ops import composite, conv2d_resample

RESAMPLING = [{}, {"up": 2}, {"down": 2}]
F = torch.tensor([1.0, 2.0, 4.0, 3.0]) / 10  # asymmetric, to detect a flipped filter


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("resampling", RESAMPLING, ids=str)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("size", [(4, 4), (6, 10), (8, 2)])
def test_equation(dense, random, resampling, k, size):
    x, w = random(2, 3, *size), random(4, 3, k, k)
    y = conv2d_resample(x, w, F.double(), **resampling)
    assert torch.allclose(y, torch.from_numpy(dense.conv_resample(x, w, F.double(), **resampling)), rtol=1e-11)


@pytest.mark.usefixtures("implementation")
def test_odd_sizes(dense, random):
    x, w = random(1, 2, 5, 7), random(3, 2, 3, 3)
    for resampling in ({}, {"up": 2}):
        y = conv2d_resample(x, w, F.double(), **resampling)
        assert torch.allclose(y, torch.from_numpy(dense.conv_resample(x, w, F.double(), **resampling)), rtol=1e-11)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("resampling", RESAMPLING, ids=str)
@pytest.mark.parametrize("k", [1, 3])
def test_derivatives(random, resampling, k):
    x, w = random(1, 2, 4, 2, requires_grad=True), random(2, 2, k, k, requires_grad=True)

    def function(x, w):
        return conv2d_resample(x, w, F.double(), **resampling)

    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, (x, w))
    assert gradcheck(lambda x: function(x, w.detach()), (x,))
    assert gradgradcheck(lambda w: function(x.detach(), w), (w,))


@pytest.mark.parametrize("resampling", RESAMPLING, ids=str)
@pytest.mark.parametrize("channels", [(3, 5), (64, 80)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_auto_equals_the_reference_to_the_third_derivative(random, resampling, channels, layout):
    i, o = channels
    x = random(2, i, 4, 6).contiguous(memory_format=layout).requires_grad_(True)
    w = random(o, i, 3, 3).contiguous(memory_format=layout).requires_grad_(True)
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            y = conv2d_resample(x, w, F.double(), **resampling)
        first = torch.autograd.grad(y.square().mean(), (x, w), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, w), create_graph=True)
        third = torch.autograd.grad(sum(g.square().sum() for g in second), (x, w))
        results.append((y, *first, *second, *third))
    for auto, reference in zip(*results):
        assert torch.allclose(auto, reference, rtol=1e-9, atol=1e-9 * reference.abs().max().item())


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("resampling", RESAMPLING, ids=str)
def test_half_precision(dense, random, rms_error, dtype, resampling):
    x, w = random(2, 16, 8, 8).to(dtype), (random(16, 16, 3, 3) / 12).to(dtype)
    exact = torch.from_numpy(dense.conv_resample(x.double(), w.double(), F, **resampling))
    result = conv2d_resample(x, w, F, **resampling)
    f = F.outer(F).to(dtype).flip([0, 1]).expand(16, 1, -1, -1)
    conv2d = torch.nn.functional.conv2d
    if "up" in resampling:
        plain = torch.nn.functional.conv_transpose2d(x, w.transpose(0, 1), stride=2)
        plain = conv2d(plain, f * 4, padding=1, groups=16)
    elif "down" in resampling:
        plain = conv2d(conv2d(x, f, padding=2, groups=16), w, stride=2)
    else:
        plain = conv2d(x, w, padding=1)
    assert result.dtype == dtype
    assert rms_error(result, exact) <= 2 * rms_error(plain, exact)


def test_gradients_in_half_precision_keep_the_type(random):
    x, w = random(1, 4, 4, 4).bfloat16().requires_grad_(True), random(4, 4, 3, 3).bfloat16().requires_grad_(True)
    for gradient in torch.autograd.grad(conv2d_resample(x, w, F, up=2).float().square().sum(), (x, w)):
        assert gradient.dtype == torch.bfloat16 and gradient.isfinite().all()


def test_a_gradient_of_images_computes_none_of_weights(monkeypatch):
    """As in R1, whatever thread computes it; a backward pass after it computes them."""
    x, w = (torch.randn(s, requires_grad=True) for s in ((1, 4, 8, 8), (4, 4, 3, 3)))
    masks, backward = [], composite._convolution_backward
    monkeypatch.setattr(composite, "_convolution_backward", lambda *a: masks.append(a[-1]) or backward(*a))
    y = conv2d_resample(x * 2, w).square().sum()
    (dx,) = torch.autograd.grad(y, x, create_graph=True)
    assert masks == [[True, False, False]] and w.grad is None
    (y + dx.square().sum()).backward()
    assert masks.count([False, True, False]) == 2 and w.grad.abs().sum() > 0
