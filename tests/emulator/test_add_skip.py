"""add_skip: its kernel under sanitizers, and called from Python on emulated kernels, and on a GPU if there is one."""

import itertools
import math

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.layers import ToRGB
from stylegan_cli.ops import add_skip, dispatch, fir_filter

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
TAPS = torch.tensor([1.0, 3.0, 5.0, 2.0]) / 11  # not symmetric


def image_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def tensors(shape, dtype, layout, seed=0):
    """x, b and below, with gradients of x that rounding does not decide."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    x, b, below = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, (c,), (n, c, -(-h // 2), -(-w // 2)))
    )
    x = x.to(dtype).contiguous(memory_format=layout)
    b, below = b.to(image_dtype(dtype)), below.to(image_dtype(dtype)).contiguous(memory_format=layout)
    near = ((x.double() + b[:, None, None]).abs() - 1.5).abs() < 0.02
    return torch.where(near, torch.zeros_like(x), x).contiguous(memory_format=layout), b, below


def exactly(x, b, below, f, clamp):
    with ops.use("reference"):
        below, f = (None if t is None else t.double() for t in (below, f))
        return add_skip(x.double(), None if b is None else b.double(), below, f, clamp)


# Rows of whole vectors, of any length, and shorter than one; several strips and pairs of rows; odd sizes at the lowest
# level.
SHAPES = [(2, 3, 8, 8), (2, 3, 6, 10), (1, 2, 4, 2), (1, 1, 2, 6), (2, 4, 34, 4), (1, 5, 2, 2)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernel_under_sanitizers(emulator, dtype):
    calls = []
    for shape, layout, with_below in [
        *itertools.product(SHAPES, LAYOUTS, (True, False)),
        *itertools.product([(2, 3, 3, 5)], LAYOUTS, (False,)),
    ]:
        x, b, below = tensors(shape, dtype, layout)
        b, below = (b, below) if with_below else (None, None)
        f = TAPS.to(image_dtype(dtype))
        y = torch.empty_like(x, dtype=image_dtype(dtype))
        fields = {"x": x, "b": b, "below": below, "f": f, "y": y, "dtype": dtype, "clamp": 1.5}
        fields |= dict(zip("nchw", shape)) | {"channels_last": int(layout == torch.channels_last)}
        calls.append((fields, y, exactly(x, b, below, f, 1.5)))
    emulator.run([("add_skip", fields) for fields, _, _ in calls])
    for fields, y, exact in calls:
        error = (y.double() - exact).abs().max().item()
        assert error < (1e-14 if dtype == torch.float64 else 2e-6), fields


def test_kernel_with_long_strips(emulator):
    """Enough rows that a strip has two pairs of them."""
    x, b, below = tensors((1, 1, 4102, 1024), torch.float16, LAYOUTS[0])
    y, rest = torch.empty_like(x, dtype=torch.float32), {"dtype": x.dtype, "channels_last": 0, "clamp": math.inf}
    emulator.call("add_skip", x=x, b=b, below=below, f=TAPS, y=y, **dict(zip("nchw", x.shape)), **rest)
    assert (y.double() - exactly(x, b, below, TAPS, None)).abs().max() < 2e-6


def test_kernel_refuses(emulator):
    x, b, below = tensors((1, 3, 4, 4), torch.float32, LAYOUTS[0])
    fields = {"x": x, "b": b, "below": below, "f": TAPS, "y": x.clone(), "dtype": x.dtype, "clamp": 1.0}
    fields |= {"n": 1, "c": 3, "h": 4, "w": 4, "channels_last": 0}
    with pytest.raises(RuntimeError, match="the size must be even"):
        emulator.call("add_skip", **fields | {"h": 3})
    with pytest.raises(RuntimeError, match="the batch is too large"):
        emulator.call("add_skip", **fields | {"n": 2**29})


@pytest.mark.parametrize("with_below", [True, False])
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_differentiable_twice(randn, with_below, clamp):
    x, b, below = randn(2, 3, 4, 6).requires_grad_(), randn(3).requires_grad_(), randn(2, 3, 2, 3).requires_grad_()
    f = TAPS.to(x.device, torch.float64)
    inputs = (x, b, below) if with_below else (x, b)

    def function(x, b, below=None):
        return add_skip(x, b, below, f, clamp)

    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_precision(device, dtype, layout):
    """Values in float32 precision; gradients with an error of at most twice that of PyTorch operations."""
    f = TAPS.to(device)
    x, b, below = (t.to(device) for t in tensors((2, 3, 10, 12), dtype, layout))

    def results(dtype):
        leaves = [t.to(d).requires_grad_() for t, d in zip((x, b, below), (dtype, *[image_dtype(dtype)] * 2))]
        y = add_skip(*leaves, f.to(image_dtype(dtype)), 1.5)
        return y, *grad(y.square().sum(), leaves)

    with ops.use("reference"):
        exact, plain = results(torch.float64), results(dtype)
    for result, p, e in zip(results(dtype), plain, exact):
        # The gradient of x is rounded before that of b sums it.
        assert (result - e).norm() <= 2 * (p - e).norm() + torch.finfo(dtype).eps / 8 * e.norm()
    assert (results(dtype)[0] - exact[0]).abs().max() < 2e-6
    y = add_skip(x, b, below, f, 1.5)
    assert y.is_contiguous(memory_format=layout) and y.dtype == torch.float32
    torch.testing.assert_close(add_skip(x, b, below.contiguous(), f, 1.5), y)  # layouts can differ


def test_other_filters_use_the_other_ops(randn):
    x, b, below = randn(1, 3, 6, 6), randn(3), randn(1, 3, 3, 3)
    f = fir_filter([1, 5, 10, 10, 5, 1]).to(x)
    with ops.use("reference"):
        exact = add_skip(x, b, below, f)
    torch.testing.assert_close(add_skip(x, b, below, f), exact)
    torch.testing.assert_close(add_skip(x.float(), b, below, f.float()), exact, rtol=1e-5, atol=1e-5)


def test_nan_stays_nan(randn):
    x = torch.full_like(randn(1, 1, 2, 2), torch.nan)
    assert add_skip(x, clamp=1.0).isnan().all()


def test_launches_and_bytes():
    """toRGB with its skip image: no pass but the convolution's, the style's, and one that moves 7 bytes per number."""
    layer = ToRGB(32, 3, 8, clamp=256).to("meta")
    x = torch.empty(8, 32, 256, 256, dtype=torch.half, device="meta").contiguous(memory_format=LAYOUTS[1])
    below = torch.empty(8, 3, 128, 128, device="meta").contiguous(memory_format=LAYOUTS[1])
    calls = []

    class Calls(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.numel() >= below.numel() and not function.is_view:
                read = [t.numel() * t.element_size() for t in args if isinstance(t, torch.Tensor)]
                calls.append((str(function), sum(read) + result.numel() * result.element_size()))
            return result

    with dispatch.kernels_on("meta"), ops.use("cuda"), torch.no_grad(), Calls():
        y = layer(x, torch.empty(8, 8, device="meta"), below, fir_filter([1, 3, 3, 1]))
    assert [name for name, _ in calls] == ["sgan.epilogue.default", "aten.convolution.default", "sgan.add_skip.default"]
    assert calls[-1][1] <= 7.01 * y.numel()


def test_opcheck_and_compile(randn):
    x = randn(2, 3, 4, 6, dtype=torch.float16).contiguous(memory_format=torch.channels_last).requires_grad_()
    b, below = randn(3, dtype=torch.float32).requires_grad_(), randn(2, 3, 2, 3, dtype=torch.float32).requires_grad_()
    f = TAPS.to(x.device)
    for clamp in (1.5, math.inf):
        torch.library.opcheck(torch.ops.sgan.add_skip.default, (x, b, below, f, clamp))
    torch.library.opcheck(torch.ops.sgan.add_skip.default, (x, None, None, f, math.inf))
    torch._dynamo.reset()
    function = lambda *t: add_skip(*t, f, 1.5)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    traced, eager = (grad(call(x, b, below).square().sum(), (x, b, below)) for call in (compiled, function))
    for pair in zip(traced, eager):
        torch.testing.assert_close(*pair)
    assert torch.equal(compiled(x, b, below), function(x, b, below))


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: lambda t: t[0]}, "x must be"),
        ({0: lambda t: t.int()}, "x must be float32, float16, bfloat16 or float64"),
        ({1: lambda t: t[:2]}, r"b has the wrong shape \[2\]"),
        ({2: lambda t: t[..., :2]}, "below has the wrong shape"),
        ({2: lambda t: t.double()}, "below must be float32"),
        ({3: lambda t: t[:3]}, "f has the wrong shape"),
    ],
)
def test_refuses(randn, change, message):
    arguments = [randn(*s, dtype=torch.float32) for s in ((2, 3, 4, 6), (3,), (2, 3, 2, 3), (4,))]
    for i, function in change.items():
        arguments[i] = function(arguments[i])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.add_skip(*arguments, 1.0)
