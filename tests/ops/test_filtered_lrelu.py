"""Activation between two resamplings, against zero insertion and whole filters, and its derivatives."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn import functional as F

from stylegan_cli import ops
from stylegan_cli.ops import filtered_lrelu, lowpass_filter, tiles
from stylegan_cli.ops.bias_act import bias_act_reference

FACTORS = list(itertools.product((1, 2, 4), (1, 2, 4)))
# Filters for upsampling and downsampling. None is symmetric.
FILTERS = {
    "separable": (torch.tensor([1.0, 3.0, 4.0, 2.0, -1.0]), torch.tensor([2.0, -1.0, 3.0, 1.0])),
    "2d down": (torch.tensor([1.0, 3.0, 4.0, 2.0]), torch.arange(20.0).sin().view(4, 5)),
    "2d up": (torch.arange(24.0).cos().view(4, 6), torch.tensor([2.0, -1.0, 3.0, 1.0])),
    "2d": (torch.arange(20.0).cos().view(5, 4), torch.arange(24.0).sin().view(4, 6)),
}
PADDINGS = [3, (5, 4, 2, 7), (-1, 4, 5, -2), (11, 0, -3, 12)]


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of a few rows and columns, so that small images have many."""
    monkeypatch.setattr(tiles, "SAMPLES", tiles.LANES * 81)


def filters(name):
    return tuple(f.double() / 4 for f in FILTERS[name])


def both(function):
    """The results with both implementations."""
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            results.append(function())
    return results


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("up", "down"), FACTORS)
def test_equation(dense, random, name, up, down):
    x, b, (fu, fd) = random(2, 3, 9, 12), random(3), filters(name)
    for padding, flip, clamp in itertools.product(PADDINGS, (False, True), (None, 0.7)):
        sides = (padding,) * 4 if isinstance(padding, int) else padding
        y = filtered_lrelu(x, b, fu, fd, up, down, padding, gain=1.7, slope=0.3, clamp=clamp, flip=flip)
        exact = dense.filtered_lrelu(x, b, fu, fd, up, down, sides, 1.7, 0.3, clamp, flip)
        assert y.shape == exact.shape and np.allclose(y, exact, rtol=1e-12, atol=1e-12), (padding, flip, clamp)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("up", "down"), FACTORS)
def test_tiles(dense, random, name, up, down):
    """A tile's result, and what its gradient reads, do not depend on where it is cut."""
    x, b, (fu, fd) = random(1, 19, 11, 23, requires_grad=True), random(19), filters(name)
    options = {"gain": 1.7, "slope": 0.3, "clamp": 0.7}

    def function():
        y = filtered_lrelu(x, b, fu, fd, up, down, (-1, 4, 5, -2), **options)
        return y, *grad(y, x, torch.linspace(-1, 1, y.numel()).double().sin().view(y.shape))

    for tiled, reference in zip(*both(function)):
        assert torch.allclose(tiled, reference, rtol=1e-12, atol=1e-12)
    exact = dense.filtered_lrelu(x.detach(), b, fu, fd, up, down, (-1, 4, 5, -2), **options)
    assert np.allclose(function()[0].detach(), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("up", "down"), FACTORS)
@pytest.mark.parametrize(("padding", "flip", "clamp"), [((4, 3, 2, 5), False, None), ((-1, 4, 5, 0), True, 0.7)])
def test_derivatives(random, name, up, down, padding, flip, clamp):
    x, b, (fu, fd) = random(1, 3, 5, 6, requires_grad=True), random(3, requires_grad=True), filters(name)

    def function(x, b):
        return filtered_lrelu(x, b, fu, fd, up, down, padding, slope=0.3, clamp=clamp, flip=flip)

    assert gradcheck(function, (x, b), fast_mode=True)
    assert gradgradcheck(function, (x, b), fast_mode=True)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_auto_equals_the_reference_in_all_derivatives(random, layout):
    """Of a nonlinear function, with filters as in StyleGAN3, in a rectangle."""
    x, b = random(1, 18, 14, 16), random(18, requires_grad=True)
    x = x.to(memory_format=layout).requires_grad_(True)
    fu, fd = lowpass_filter(24, 2, 1, 32), lowpass_filter(12, 4, 4, 32, radial=True)

    def function():
        y = filtered_lrelu(x, b, fu.double(), fd.double(), 4, 2, (-6, -9, -6, -9), clamp=1.5)
        dx, db = grad(y.sin().sum(), (x, b), create_graph=True)
        second = grad(dx.square().sum() + db.square().sum(), (x, b), create_graph=True)
        return y, dx, db, *second, *grad(second[0].square().sum(), x)

    for auto, reference in zip(*both(function)):
        assert torch.allclose(auto, reference, rtol=1e-10, atol=1e-12)
    assert function()[0].is_contiguous(memory_format=layout)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("radial", [False, True])
def test_lower_precision(random, rms_error, dtype, radial):
    x, b, dy = random(2, 5, 20, 17).to(dtype), random(5).to(dtype), random(2, 5, 20, 17).to(dtype)
    fu, fd = lowpass_filter(12, 4, 4, 32), lowpass_filter(12, 4, 4, 32, radial)

    def function(x, b):
        x, b = x.detach().requires_grad_(True), b.detach().requires_grad_(True)
        y = filtered_lrelu(x, b, fu, fd, 2, 2, (11, 10, 11, 10), clamp=256)
        return y, *grad(y, (x, b), dy.to(x.dtype))

    with ops.use("reference"):
        exact, plain = function(x.double(), b.double()), function(x, b)
    for result, p, e in zip(function(x, b), plain, exact):
        assert result.dtype == dtype
        assert rms_error(result, e) <= 2 * rms_error(p, e)


def test_the_graph_keeps_two_bits_per_upsampled_sample(random):
    x, f = random(1, 64, 32, 32).float().requires_grad_(True), lowpass_filter(12, 4, 4, 32)
    kept = []

    def pack(t):
        kept.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = filtered_lrelu(x, None, f, f, 2, 2, (11, 10, 11, 10), clamp=256)
    samples = 64 * (2 * (y.shape[2] - 1) + 12) ** 2
    assert sum(kept) <= samples / 4 + 200
    kept.clear()
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        filtered_lrelu(x, None, f, f, 2, 2, (11, 10, 11, 10), clamp=256)
    assert not kept


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("slope", [0, -0.5, 1, 1.5])
def test_slopes(dense, random, slope):
    x, b, (fu, fd) = random(1, 3, 6, 7, requires_grad=True), random(3), filters("separable")
    y = filtered_lrelu(x, b, fu, fd, 2, 2, 4, gain=1, slope=slope, clamp=1)
    exact = dense.filtered_lrelu(x.detach(), b, fu, fd, 2, 2, (4, 4, 4, 4), 1, slope, 1)
    assert np.allclose(y.detach(), exact, rtol=1e-12, atol=1e-12)
    assert gradcheck(
        lambda x: filtered_lrelu(x, b, fu, fd, 2, 2, 4, gain=1, slope=slope, clamp=1), (x,), fast_mode=True
    )


@pytest.mark.usefixtures("implementation")
def test_without_filters(random):
    """The last layer of StyleGAN3 has none: bias, activation and clamp."""
    x, b = random(2, 3, 4, 5), random(3)
    assert torch.equal(filtered_lrelu(x, b, gain=1, slope=1, clamp=0.5), (x + b[:, None, None]).clamp(-0.5, 0.5))
    assert torch.allclose(filtered_lrelu(x, b), bias_act_reference(x, b, "lrelu", 2**0.5, 0.2, None), rtol=1e-13)
    exact = F.leaky_relu(F.pad(x + b[:, None, None], (1, -1, 2, 0)), 0.2) * 2**0.5
    assert torch.allclose(filtered_lrelu(x, b, padding=(1, -1, 2, 0)), exact, rtol=1e-13)


@pytest.mark.usefixtures("implementation")
def test_the_padding_has_no_bias(random):
    """Far from the image the result is zero, whatever the bias."""
    f = lowpass_filter(12, 4, 4, 32).double()
    y = filtered_lrelu(random(1, 1, 4, 4), torch.full([1], 9.0).double(), f, f, 2, 2, 60)
    assert y[:, :, :10].abs().max() == 0 and y[:, :, 20:-20].abs().max() > 1


@pytest.mark.usefixtures("implementation")
def test_inputs_are_not_modified(random):
    x, b, (fu, fd) = random(1, 16, 8, 8), random(16), filters("separable")
    before = [t.clone() for t in (x, b, fu, fd)]
    filtered_lrelu(x.to(memory_format=torch.channels_last), b, fu, fd, 2, 2, 4, clamp=0.1)
    filtered_lrelu(x, b, fu, fd, 1, 1, 7)
    assert all(torch.equal(t, old) for t, old in zip((x, b, fu, fd), before))


def test_bad_arguments():
    x, f = torch.zeros(1, 2, 4, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"b must have shape \[2\] .* not \[3\]"):
        filtered_lrelu(x, torch.zeros(3))
    with pytest.raises(ValueError, match="gain must be positive, not 0"):
        filtered_lrelu(x, gain=0)
    with pytest.raises(ValueError, match="fu needs at least 2 taps for a factor of 2, not 1"):
        filtered_lrelu(x, up=2)
    with pytest.raises(ValueError, match="fd needs at least 4 taps for a factor of 4, not 2"):
        filtered_lrelu(x, None, f, torch.ones(5, 2), down=4)
    with pytest.raises(ValueError, match="do not fit into an image of 4x4, upsampled by 1 and padded by -1, 0, 0, 0"):
        filtered_lrelu(x, None, f, f, padding=(-1, 0, 0, 0))
