"""Resampling against a sum over all filter taps."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.ops import downsample2d, fir_filter, upfirdn2d, upsample2d

FILTERS = {
    "even": torch.tensor([1.0, 3.0, 4.0, 2.0]),
    "odd": torch.tensor([1.0, -2.0, 4.0]),
    "long": torch.arange(1.0, 9.0),
    "rectangle": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]),
    "one": torch.tensor([2.0]),
}
PADDINGS = [0, 2, (3, 1, 0, 2), (-1, 2, 3, -2), (8, 8, 8, 8)]


def equal(result, dense):
    return result.shape == dense.shape and np.allclose(result.detach().numpy(), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (2, 2), (3, 2), (2, 3)])
def test_equation(dense, random, name, up, down):
    f = FILTERS[name].double()
    x = random(2, 3, 7, 10)
    for padding, flip, gain in itertools.product(PADDINGS, [False, True], [1, 2.5]):
        sides = (padding,) * 4 if isinstance(padding, int) else padding
        size = [7 * up + sides[2] + sides[3], 10 * up + sides[0] + sides[1]]
        if size[0] < f.shape[0] or size[1] < f.shape[-1]:
            continue
        y = upfirdn2d(x, f, up=up, down=down, padding=padding, flip=flip, gain=gain)
        assert equal(y, dense.upfirdn(x, f, up, down, sides, flip, gain)), (padding, flip, gain)
        assert y.shape[2:] == tuple((s - k) // down + 1 for s, k in zip(size, (f.shape[0], f.shape[-1])))


def test_flip_chooses_between_convolution_and_correlation():
    x = torch.zeros(1, 1, 1, 5)
    x[..., 2] = 1
    f = torch.tensor([[1.0, 2.0, 3.0]])
    assert upfirdn2d(x, f).flatten().tolist() == [1, 2, 3]  # the filter itself, from an impulse
    assert upfirdn2d(x, f, flip=True).flatten().tolist() == [3, 2, 1]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", ["even", "rectangle", "long"])
@pytest.mark.parametrize(
    ("up", "down", "padding"),
    [(1, 1, 1), (2, 1, (2, 1, 2, 1)), (1, 2, 1), (3, 2, (4, 2, 3, 3)), (1, 2, (9, -1, 6, -1)), (2, 3, (5, 4, 4, 5))],
)
def test_derivatives(random, name, up, down, padding):
    x = random(1, 2, 5, 6, requires_grad=True)
    f = FILTERS[name].double() / 10
    if name == "long" and padding == 1:
        padding = 3

    def function(x):
        return upfirdn2d(x, f, up=up, down=down, padding=padding, gain=1.5)

    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


def test_third_derivatives_match_the_reference(random):
    x, f = random(1, 2, 6, 6, requires_grad=True), fir_filter([1, 3, 3, 1]).double()
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            y = upfirdn2d(x, f, down=2, padding=1)
        (g,) = torch.autograd.grad(y.pow(4).sum(), x, create_graph=True)
        (g,) = torch.autograd.grad(g.pow(2).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(g.pow(2).sum(), x)[0])
    assert torch.allclose(*results, rtol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(("up", "down", "padding"), [(1, 1, 2), (2, 1, (2, 1, 2, 1)), (1, 2, 1)])
def test_channels_last(random, up, down, padding):
    x, f = random(2, 8, 6, 6), FILTERS["even"]
    y = upfirdn2d(x, f, up=up, down=down, padding=padding)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(upfirdn2d(last, f, up=up, down=down, padding=padding), y, rtol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("up", "down", "padding"), [(1, 1, 2), (2, 1, (2, 1, 2, 1)), (1, 2, 1)])
def test_half_precision(dense, random, rms_error, dtype, up, down, padding):
    x, f = random(2, 4, 16, 16).to(dtype), fir_filter([1, 3, 3, 1])
    options = {"up": up, "down": down, "padding": padding, "gain": up**2}
    with ops.use("reference"):
        exact = upfirdn2d(x.float(), f, **options)
    result = upfirdn2d(x, f, **options)
    u = torch.nn.functional.pad(x.reshape(2, 4, 16, 1, 16, 1), [0, up - 1, 0, 0, 0, up - 1])
    u = u.reshape(2, 4, 16 * up, 16 * up)
    u = torch.nn.functional.pad(u, (padding,) * 4 if isinstance(padding, int) else padding)
    taps = (f.outer(f) * up**2).to(dtype).expand(4, 1, -1, -1)
    plain = torch.nn.functional.conv2d(u, taps, stride=down, groups=4)
    assert result.dtype == dtype
    assert rms_error(result, exact) <= 2 * rms_error(plain, exact)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 1), (1, 5, 10, 10, 5, 1)])
def test_upsampling_and_downsampling_by_two(dense, random, taps):
    x, f = random(2, 3, 6, 8), fir_filter(taps)
    k = len(taps)
    up = upsample2d(x, f)
    assert up.shape == (2, 3, 12, 16)
    full = dense.upfirdn(x, f, up=2, padding=(k, k, k, k), gain=4)
    start = k // 2  # center of the filter
    assert equal(up, full[:, :, start : start + 12, start : start + 16])
    down = downsample2d(x, f)
    assert down.shape == (2, 3, 3, 4)
    full = dense.upfirdn(x, f, padding=(k, k, k, k))
    assert equal(down, full[:, :, start + 1 : start + 7 : 2, start + 1 : start + 9 : 2])


@pytest.mark.parametrize("padding", [(2, 1, 2, 1), (0, 2, 3, -1), (-1, 3, 1, 1)])
def test_upsampling_in_bfloat16_with_an_asymmetric_filter(random, rms_error, padding):
    x, f = random(2, 4, 5, 7).bfloat16(), FILTERS["even"] / 10
    with ops.use("reference"):
        exact = upfirdn2d(x.float(), f, up=2, padding=padding)
    y = upfirdn2d(x, f, up=2, padding=padding)
    assert y.dtype == torch.bfloat16 and rms_error(y, exact) < 4e-3 * exact.std()


@pytest.mark.parametrize("resample", [upsample2d, downsample2d])
def test_brightness_is_preserved(resample):
    y = resample(torch.ones(1, 1, 16, 16), fir_filter([1, 3, 3, 1]))
    assert torch.allclose(y[:, :, 2:-2, 2:-2], torch.tensor(1.0))


def test_resampling_does_not_move_the_image():
    """A resampled ramp is a ramp with values at the centers of the new pixels."""
    x = (torch.arange(16.0) + 0.5).expand(1, 1, 16, 16)
    f = fir_filter([1, 3, 3, 1])
    up, down = upsample2d(x, f)[0, 0, 8], downsample2d(x, f)[0, 0, 4]
    assert torch.allclose(up[4:-4], ((torch.arange(32.0) + 0.5) / 2)[4:-4])
    assert torch.allclose(down[2:-2], ((torch.arange(8.0) + 0.5) * 2)[2:-2])


def test_fir_filter():
    f = fir_filter([1, 3, 3, 1])
    assert f.dtype == torch.float32 and f.tolist() == [0.125, 0.375, 0.375, 0.125]


@pytest.mark.parametrize(("padding", "size"), [(0, "3x3"), ((0, 0, -1, -1), "1x3")])
def test_filter_larger_than_the_image(padding, size):
    with pytest.raises(ValueError, match=f"4x4 filter does not fit into a padded image of {size}"):
        upfirdn2d(torch.zeros(1, 1, 3, 3), torch.ones(4), padding=padding)
