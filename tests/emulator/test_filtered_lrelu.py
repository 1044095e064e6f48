"""filtered_lrelu with its kernel, called from Python: on emulated kernels, and on a GPU if there is one."""

import sys

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_cli import ops
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.ops import dispatch, filtered_lrelu, lowpass_filter

sgan, module = torch.ops.sgan, sys.modules["stylegan_cli.ops.filtered_lrelu"]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
LAYERS = {  # up, padding, whether the filter for downsampling is radial
    "same rate": (2, (9, 8), False),
    "doubling": (4, (-6, -9), False),
    "same rate, radial": (2, (11, 10), True),
    "doubling, radial": (4, (-2, -5), True),
}


def rms_error(result, exact):
    return (result.double() - exact).square().mean().sqrt().item()


def layer_of(name, device="cpu", clamp=1.5):
    """The op in a layer of StyleGAN3."""
    up, padding, radial = LAYERS[name]
    fu = lowpass_filter(6 * up, 0.25 / up, 0.1, 1).to(device)
    fd = lowpass_filter(12, 0.2, 0.1, 1, radial).to(device)
    return lambda x, b: filtered_lrelu(x, b, fu, fd, up, 2, padding * 2, clamp=clamp)


@pytest.mark.parametrize("up, down", [(1, 1), (2, 2), (4, 2), (2, 4), (3, 2)])
@pytest.mark.parametrize("taps", [((5,), (4,)), ((4, 6), (4,)), ((5,), (5, 4)), ((4, 5), (6, 4))], ids=str)
def test_differentiable_twice(randn, up, down, taps):
    x, b, fu, fd = randn(1, 2, 5, 6).requires_grad_(), randn(2).requires_grad_(), randn(*taps[0]), randn(*taps[1])

    def function(x, b):
        return filtered_lrelu(x, b, fu, fd, up, down, (-1, 4, 5, 0), slope=0.3, clamp=0.7, flip=up == 2)

    assert gradcheck(function, (x, b), fast_mode=True) and gradgradcheck(function, (x, b), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_precision(randn, name, layout, dtype):
    """Values and all derivatives of a rectangle, with errors at most twice those of PyTorch operations."""
    layer, x, b = layer_of(name, randn(1).device), randn(2, 11, 20, 37), randn(11)

    def function(x, b):
        x, b = x.detach().requires_grad_(), b.detach().requires_grad_()
        y = layer(x, b)
        dy = torch.linspace(0, 99, y.numel()).sin().view(y.shape).to(y).requires_grad_()
        dx, db = grad(y, (x, b), dy, create_graph=True)
        direction = torch.linspace(0, 77, x.numel()).sin().view(x.shape).to(x)
        second = grad((dx.square() * direction).sum() + db.sum(), dy, create_graph=True)[0]
        return y, dx, db, second, *grad(second.square().sum(), dy)

    x, b = x.to(dtype).contiguous(memory_format=layout), b.to(dtype)
    with ops.use("reference"):
        exact, plain = function(x.double(), b.double()), function(x, b)
    for result, p, e in zip(function(x, b), plain, exact):
        assert result.dtype == dtype
        slack = torch.finfo(dtype).eps / 2 * rms_error(e, torch.zeros_like(e))
        assert rms_error(result, e) <= 2 * rms_error(p, e) + slack
    assert layer(x, b).is_contiguous(memory_format=layout)


class Traffic(TorchDispatchMode):
    """Counts the operations that compute something, and the bytes of their tensors."""

    def __init__(self):
        super().__init__()
        self.launches, self.bytes = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if not function.is_view and "detach" not in str(function) and "empty" not in str(function):
            self.launches.append(str(function))
            tensors = *args, *(results if isinstance(results, tuple) else [results])
            self.bytes += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
        return results


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name, forward, training", [("same rate", 4, 10), ("doubling", 2.5, 7)])
def test_launches_and_bytes(name, forward, training, layout):
    """One kernel in each direction, and close to the fewest bytes per output pixel: x and y in half precision; in
    training also dy, dx, and a byte of codes, written and read."""
    x = torch.empty(8, 512, 150, 150, dtype=torch.half, device="meta").contiguous(memory_format=layout)
    layer = layer_of(name, "meta", clamp=256)
    with dispatch.kernels_on("meta"), ops.use("cuda"), Traffic() as traffic, torch.no_grad():
        pixels = layer(x, None).numel()
    assert len(traffic.launches) == 1 and traffic.bytes <= 1.1 * forward * pixels
    with dispatch.kernels_on("meta"), ops.use("cuda"), Traffic() as traffic:
        y = layer(x.requires_grad_(), None)
        grad(y, x, torch.empty_like(y))
    assert traffic.launches == ["sgan.filtered_lrelu.default", "sgan.filtered_lrelu_linear.default"]
    assert traffic.bytes <= 1.1 * training * pixels


def test_the_graph_keeps_two_bits_per_upsampled_sample(randn):
    x, kept = randn(1, 16, 64, 64, dtype=torch.float32).requires_grad_(), []

    def pack(t):
        kept.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = layer_of("same rate", x.device)(x, None)
    assert sum(kept) <= 1.15 * 16 * (2 * (y.shape[2] - 1) + 12) ** 2 / 4
    with torch.no_grad():
        assert torch.equal(layer_of("same rate", x.device)(x, None), y)


def test_a_filter_is_decomposed_once(randn, monkeypatch):
    calls, real = [], module.separable_pairs
    monkeypatch.setattr(module, "separable_pairs", lambda f, error: calls.append(f) or real(f, error))
    x, fu = randn(1, 2, 20, 20, dtype=torch.float16), lowpass_filter(12, 0.1, 0.1, 1).to(randn(1).device)
    fd = lowpass_filter(12, 0.2, 0.1, 1, radial=True).to(x.device)
    y = [filtered_lrelu(x, None, fu, fd, 2, 2, (11, 10, 11, 10)) for _ in range(2)]
    assert len(calls) == 1 and torch.equal(*y)
    fd.mul_(2)
    torch.testing.assert_close(filtered_lrelu(x, None, fu, fd, 2, 2, (11, 10, 11, 10)), 2 * y[0])
    fd.copy_(randn(12, 12))  # no sum of three
    with ops.use("reference"):
        exact = filtered_lrelu(x.double(), None, fu.double(), fd.double(), 2, 2, (11, 10, 11, 10))
    y = filtered_lrelu(x, None, fu, fd, 2, 2, (11, 10, 11, 10))
    torch.testing.assert_close(y.double(), exact, rtol=2e-3, atol=2e-3 * exact.abs().max().item())
    with torch.inference_mode():
        assert torch.equal(filtered_lrelu(x, None, fu, fd.clone(), 2, 2, (11, 10, 11, 10)), y)


def test_any_shape(randn):
    x, f = randn(6, 5, 7, 3, dtype=torch.float32).permute(3, 2, 0, 1)[:, ::2], lowpass_filter(12, 0.2, 0.1, 1)
    f = f.to(x.device)
    for options in ({"up": 2, "down": 2}, {"up": 5, "down": 2}, {"up": 1, "down": 3}):  # the second has no kernel
        y = filtered_lrelu(x, None, f, f, padding=(20, 7, 11, 12), **options)
        with ops.use("reference"):
            torch.testing.assert_close(y, filtered_lrelu(x, None, f, f, padding=(20, 7, 11, 12), **options))
    assert filtered_lrelu(x[:0], None, f, f, 2, 2, 12).shape[0] == 0
    x = x.clone()
    x[0, 0, 3, 3] = torch.nan
    assert filtered_lrelu(x, None, f, f, 2, 2, 12, clamp=1)[0, 0].isnan().any()


@pytest.mark.parametrize("kind", [{}, {"kernel": 1, "radial": True}], ids=["T", "R"])
def test_a_generator_and_its_gradients(device, kind):
    torch.manual_seed(0)
    G = build_generator(StyleGAN3Config(16, 16, channel_base=64, channel_max=6, z_dim=8, w_dim=8, **kind)).to(device)
    z = torch.randn(2, 8, device=device)

    def gradients():
        image = G(z)
        return [image, *grad(image.square().mean(), list(G.parameters()), allow_unused=True)]

    for result, exact in zip(gradients(), ops.use("reference")(gradients)()):
        if exact is not None:
            torch.testing.assert_close(result, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item() + 1e-7)


def test_opcheck(randn):
    x, b = randn(2, 3, 15, 14, dtype=torch.float32), randn(3, dtype=torch.float32)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    fu = fd = lowpass_filter(12, 0.2, 0.1, 1).to(x.device)
    arguments = (x, b.requires_grad_(), fu, fd, None, 2, 2, [9, 8, 9, 8], False, 5.6, 0.2, 1.0, True)
    torch.library.opcheck(sgan.filtered_lrelu.default, arguments)
    torch.library.opcheck(sgan.filtered_lrelu.default, (x.detach(), None, *arguments[2:-1], False))
    y, codes = sgan.filtered_lrelu(*arguments)
    back = (torch.ones_like(y).requires_grad_(), codes, fd, fu, None, 2, 2, [13, 14, 13, 14], True, 5.6, 0.2, [-2, -2])
    torch.library.opcheck(sgan.filtered_lrelu_linear.default, back)


@pytest.mark.parametrize("name", ["same rate", "same rate, radial"])
def test_compiles(randn, name):
    layer = layer_of(name, randn(1).device)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, b = randn(1, 3, 15, 14, dtype=torch.float16).requires_grad_(), randn(3, dtype=torch.float16).requires_grad_()
    results = []
    for function in (layer, compiled):
        y = function(x, b)
        results.append((y, *grad(y.float().square().sum(), (x, b))))
    for eager, traced in zip(*results):
        torch.testing.assert_close(traced, eager, rtol=3e-3, atol=3e-3 * eager.abs().max().item())


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: lambda t: t[0]}, "x must be"),
        ({0: lambda t: t.int()}, "x must be float32, float16, bfloat16 or float64"),
        ({1: lambda t: t[:2]}, r"b has the wrong shape \[2\]"),
        ({2: lambda t: t.double()}, "fu must be float32"),
        ({3: lambda t: t[None, None]}, "filters must be"),
        ({4: lambda t: torch.zeros(3, 24)}, "pairs require exactly one filter"),
        ({5: lambda t: 5}, "up and down must be 1 to 4"),
        ({7: lambda t: [0, 0, 0]}, "padding must be"),
        ({7: lambda t: [-9, -9, 0, 0]}, "the filters do not fit"),
    ],
)
def test_refuses(randn, change, message):
    f = lowpass_filter(12, 0.2, 0.1, 1).to(randn(1).device)
    arguments = [randn(2, 3, 15, 14, dtype=torch.float32), randn(3, dtype=torch.float32), f, f, None, 2, 2]
    arguments += [[9, 8, 9, 8], False, 4.0, 0.2, 1.0, True]
    for i, function in change.items():
        arguments[i] = function(arguments[i])
    with pytest.raises(RuntimeError, match=message):
        sgan.filtered_lrelu(*arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@ops.use("cuda")
def test_streams_with_different_filters_do_not_disturb_each_other():
    """And a CUDA graph of both directions gives the same numbers."""
    layers = [layer_of(name, "cuda") for name in LAYERS]
    x, b = torch.randn(4, 64, 52, 52, device="cuda", dtype=torch.float16, requires_grad=True), None

    def step(layer):
        y = layer(x, b)
        return y, *grad(y.float().square().sum(), x)

    expected, streams = [step(layer) for layer in layers], [torch.cuda.Stream() for _ in layers]
    torch.cuda.synchronize()
    results = []
    for _ in range(5):
        for layer, stream in zip(layers, streams):
            with torch.cuda.stream(stream):
                results.append(step(layer))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [step(layer) for layer in layers]
    graph.replay()
    torch.cuda.synchronize()
    for i, result in enumerate([*results, *captured]):
        assert all(torch.equal(*pair) for pair in zip(result, expected[i % len(layers)]))
