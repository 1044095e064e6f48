"""The ops by their kernels, from Python to the kernels and back: on a GPU where there is one, and on emulated kernels.

Emulated, csrc/library.cpp and csrc/*.cu are the same code, registered for the CPU.
"""

import functools
import math
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import stylegan_cli
from stylegan_cli import ops
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.ops import dispatch
from stylegan_cli.ops.bias_act import ACTIVATIONS


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """The device that the kernels run on; where nothing else is said they are used."""
    if request.param == "gpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = "cuda" if request.param == "gpu" else "cpu"
    if device == "cpu":
        torch.ops.load_library(str(request.getfixturevalue("harness").build_library()))
    with dispatch.kernels_on(device), ops.use("cuda"):
        yield device


@pytest.fixture
def draw(device):
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, **how: torch.randn(shape, generator=generator, dtype=torch.float64).to(device).to(**how)


def rms_error(mine, exact):
    return (mine.double() - exact).square().mean().sqrt().item()


def modulated_arguments(draw, dtype, up=1, k=3, channels=(5, 4), size=(4, 5)):
    """Everything that has a gradient, by name; and the rest."""
    i, o = channels
    h, w = size[0] * up, size[1] * up
    tensors = {"x": draw(2, i, *size, dtype=dtype), "w": draw(o, i, k, k) / (k * i**0.5), "style": 1 + draw(2, i) / 3}
    tensors |= {"noise": draw(2, 1, h, w), "noise_strength": draw(1).squeeze(0), "b": draw(o)}
    f = torch.tensor([1.0, 3.0, 5.0, 2.0], device=tensors["x"].device).double() / 11
    return tensors, {"up": up, "f": f, "act": "lrelu", "clamp": 1.5}


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives, in float64


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_bias_act_is_differentiable_twice(draw, act, clamp):
    x, b = draw(2, 3, 2, 2).requires_grad_(), draw(3).requires_grad_()
    function = functools.partial(ops.bias_act, act=act, clamp=clamp, gain=1.3)
    assert gradcheck(function, (x, b)) and gradgradcheck(function, (x, b))


@pytest.mark.parametrize("how", [{"gain": -1}, {"alpha": -0.2}], ids=str)
def test_rays_whose_output_hides_the_sign(draw, how):
    x, b = draw(2, 3, 2, 2).requires_grad_(), draw(3).requires_grad_()
    function = functools.partial(ops.bias_act, act="lrelu", **how)
    assert gradcheck(function, (x, b)) and gradgradcheck(function, (x, b))


def test_the_scale_gradient_is_not_summed_in_half_precision(draw):
    x, scale = torch.full_like(draw(1, 2, 4, 4), 15000).half(), draw(1, 2, dtype=torch.float32).requires_grad_()
    y = torch.ops.sgan.bias_act(x, scale, None, None, "linear", 1.0, 0.2, math.inf)
    (dscale,) = torch.autograd.grad(y, scale, torch.full_like(y, 8))
    assert torch.equal(dscale, torch.full_like(dscale, 15000.0 * 8 * 16))


def test_bias_act_has_no_third_derivative(draw):
    x = draw(1, 2).requires_grad_()
    y = ops.bias_act(x, act="swish")
    first = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="differentiable twice"):
        second.sum().backward()


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", [(4,), (3, 4)])
def test_upfirdn2d_is_differentiable_twice(draw, up, down, taps):
    x, f = draw(1, 2, 4, 5).requires_grad_(), draw(*taps)
    function = functools.partial(ops.upfirdn2d, f=f, up=up, down=down, padding=(2, 1, 3, 1))
    assert gradcheck(function, (x,)) and gradgradcheck(function, (x,))


@pytest.mark.parametrize("up, k, demodulate", [(1, 3, True), (2, 3, True), (1, 1, False)])
def test_modulated_conv2d_is_differentiable_twice(draw, up, k, demodulate):
    tensors, rest = modulated_arguments(draw, torch.float64, up, k, channels=(2, 2), size=(3, 2))
    tensors = {name: t.requires_grad_() for name, t in tensors.items()}

    def function(*values):
        return ops.modulated_conv2d(**dict(zip(tensors, values)), **rest, demodulate=demodulate)

    assert gradcheck(function, tuple(tensors.values())) and gradgradcheck(function, tuple(tensors.values()))


# ---------------------------------------------------------------------------------------------------------------------
# Precision: errors at most twice what PyTorch's own operations make in the same type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernels", ["cuda", "fused"])
@pytest.mark.parametrize("up, k", [(1, 3), (2, 3), (1, 1)])
def test_modulated_conv2d_in_half_precision(draw, dtype, kernels, up, k):
    tensors, rest = modulated_arguments(draw, dtype, up, k, channels=(24, 16), size=(7, 6))
    rest["clamp"] = None  # which numbers beside the bound have a gradient is for rounding to say

    def outputs(implementation, precision):
        given = {name: t.to(precision if name == "x" else torch.float64) for name, t in tensors.items()}
        given = {name: t.detach().requires_grad_() for name, t in given.items()}
        with ops.use(implementation):
            y = ops.modulated_conv2d(**given, **rest, demodulate=k == 3)
        first = torch.autograd.grad(y.double().square().sum(), list(given.values()), create_graph=True)
        second = torch.autograd.grad(first[0].double().square().mean(), [given["x"], given["style"], given["w"]])
        return {
            "y": y,
            **{f"d{n}": g for n, g in zip(given, first)},
            **{f"second {i}": g for i, g in enumerate(second)},
        }

    mine, plain, exact = outputs(kernels, dtype), outputs("reference", dtype), outputs("reference", torch.float64)
    for name in exact:
        # The one number noise_strength may by luck come out better than any arithmetic would have it.
        luck = torch.finfo(dtype).eps / 8 * rms_error(exact[name], torch.zeros_like(exact[name]))
        assert rms_error(mine[name], exact[name]) <= 2 * rms_error(plain[name], exact[name]) + luck, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_bias_act_and_upfirdn2d_in_low_precision(draw, dtype):
    x, b, f = draw(2, 8, 9, 8, dtype=dtype), draw(8, dtype=dtype), ops.fir_filter([1, 3, 3, 1]).to(draw(1).device)
    for op in (
        lambda x, b: ops.bias_act(x, b, act="lrelu", clamp=0.7),
        lambda x, b: ops.bias_act(x, b, act="swish"),
        lambda x, b: ops.upsample2d(x, f),
        lambda x, b: ops.downsample2d(x, f),
    ):
        reference = ops.use("reference")(op)
        exact = reference(x.double(), b.double())
        assert rms_error(op(x, b), exact) <= 2 * rms_error(reference(x, b), exact)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes, layouts, dispatch


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3), (2, 3, 5), (2, 1, 3, 3), (2, 3, 1, 1), (1, 2, 3, 2, 2)])
def test_any_shape(draw, shape):
    x, b = draw(*shape, dtype=torch.float32), draw(shape[1], dtype=torch.float32)
    assert torch.equal(ops.bias_act(x, b, act="lrelu"), ops.use("reference")(ops.bias_act)(x, b, act="lrelu"))


def test_any_strides(draw):
    x = draw(6, 5, 4, 3, dtype=torch.float32).permute(3, 2, 0, 1)[:, :, ::2]
    b, f = draw(4, dtype=torch.float32), ops.fir_filter([1, 3, 3, 1]).to(x.device)
    torch.testing.assert_close(ops.bias_act(x, b, act="lrelu"), ops.use("reference")(ops.bias_act)(x, b, act="lrelu"))
    torch.testing.assert_close(ops.upsample2d(x, f), ops.use("reference")(ops.upsample2d)(x, f))


@pytest.mark.parametrize("kernels", ["cuda", "fused"])
def test_channels_last_stays_channels_last(draw, kernels):
    tensors, rest = modulated_arguments(draw, torch.float16)
    tensors["x"] = tensors["x"].contiguous(memory_format=torch.channels_last)
    with ops.use(kernels):
        y = ops.modulated_conv2d(**tensors, **rest)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_bias_gradient_is_deterministic(draw):
    x, b = draw(4, 8, 9, 9, dtype=torch.float16), draw(8, dtype=torch.float32).requires_grad_()
    losses = [ops.bias_act(x, b, act="lrelu").float().square().sum() for _ in range(2)]
    assert torch.equal(*(torch.autograd.grad(loss, b)[0] for loss in losses))


def test_a_generator_and_its_gradients(device):
    """The whole network, by the kernels and by the references; so too the gradients of R1's kind."""
    torch.manual_seed(0)
    config = {"height": 16, "width": 16, "channels": 3, "c_dim": 0, "channel_base": 256, "channel_max": 16}
    G = build_generator(StyleGAN2Config(**config, z_dim=8, w_dim=8, mapping_layers=2)).to(device)
    D = build_discriminator(DiscriminatorConfig(**config)).to(device)
    z = torch.randn(4, 8, device=device)

    def gradients():
        image = G(z)
        score = D(image)
        (slope,) = torch.autograd.grad(score.sum(), image, create_graph=True)
        loss = score.mean() + slope.square().sum()
        return [image, score, *torch.autograd.grad(loss, [*G.parameters(), *D.parameters()], allow_unused=True)]

    for mine, exact in zip(gradients(), ops.use("reference")(gradients)()):
        if exact is not None:
            torch.testing.assert_close(mine, exact, rtol=2e-4, atol=2e-4 * exact.abs().max().item() + 1e-6)


def test_large_factors_and_short_filters_take_no_tile(draw):
    x = draw(1, 2, 24, 24, dtype=torch.float32)
    f = ops.fir_filter([1, 3, 3, 1]).to(x.device)
    for how in ({"down": 11}, {"up": 11}):
        plain = ops.use("reference")(ops.upfirdn2d)(x, f, padding=2, **how)
        torch.testing.assert_close(ops.upfirdn2d(x, f, padding=2, **how), plain)
    x[0, 0, 12, 12] = math.inf
    y = ops.upfirdn2d(x, ops.fir_filter([1, 2, 1]).to(x.device), padding=1)
    assert not y.isnan().any()


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch's own checks: schema, fake implementation, autograd, compile


def test_opcheck(draw):
    x = draw(2, 4, 5, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    scale, noise, b = draw(2, 4, dtype=x.dtype), draw(1, 1, 5, 6, dtype=x.dtype), draw(4, dtype=x.dtype)
    f = ops.fir_filter([1, 3, 3, 1]).to(x.device)
    small, leaves = (scale, noise, b), [t.clone().requires_grad_() for t in (x, scale, noise, b)]
    sgan = torch.ops.sgan
    for act in ("lrelu", "swish"):
        how = (act, 1.3, 0.2, 2.0)
        torch.library.opcheck(sgan.bias_act.default, (*leaves, *how))
    torch.library.opcheck(sgan.bias_act.default, (leaves[0].detach().contiguous(), None, None, None, *how))
    torch.library.opcheck(sgan.bias_act_backward.default, (leaves[0], None, x, *small, *how))
    from_y = (leaves[0], x, None, None, None, None, "lrelu", 1.0, 0.2, 2.0)
    torch.library.opcheck(sgan.bias_act_backward.default, from_y)
    torch.library.opcheck(sgan.bias_act_double_backward.default, (x, x, x, *small, *how))
    torch.library.opcheck(sgan.upfirdn2d.default, (leaves[0], f, 2, 1, [2, 1, 2, 1], False, 4.0))
    h = x.half().requires_grad_()
    w = draw(16, 4, 3, 3, dtype=h.dtype).requires_grad_()
    style, d = draw(2, 4, dtype=torch.float32).requires_grad_(), draw(2, 4, dtype=torch.float32).requires_grad_()
    large = draw(2, 1, 10, 12, dtype=torch.float32)
    arguments = (h, w, style, d, large, b.clone().requires_grad_(), 4, 0.2, 1.3, 2.0)
    torch.library.opcheck(sgan.modulated_conv2d.default, arguments)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_an_activation_without_a_kernel_is_composite(draw, monkeypatch, act):
    x, called, epilogue = draw(2, 3), [], sys.modules["stylegan_cli.ops.bias_act"].epilogue
    for name in ("bias_act", "modulated_conv2d"):
        note = lambda *given: called.append(given) or epilogue(*given)  # noqa: E731
        monkeypatch.setattr(sys.modules[f"stylegan_cli.ops.{name}"], "epilogue", note)
    y = ops.bias_act(x, act=act, gain=2)
    torch.testing.assert_close(y, ops.use("reference")(ops.bias_act)(x, act=act, gain=2))
    tensors, rest = modulated_arguments(draw, torch.float64)
    y = ops.modulated_conv2d(**tensors, **rest | {"act": act})
    torch.testing.assert_close(y, ops.use("reference")(ops.modulated_conv2d)(**tensors, **rest | {"act": act}))
    assert len(called) == (0 if act in ("elu", "selu", "softplus") else 2)


@pytest.mark.parametrize("kernels", ["cuda", "fused", "composite", "reference"])
def test_a_modulated_layer_compiles(draw, kernels):
    tensors, rest = modulated_arguments(draw, torch.float16, up=2)
    tensors = {name: t.detach().requires_grad_() for name, t in tensors.items()}

    def layer(tensors):
        return ops.modulated_conv2d(**tensors, **rest)

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    results = []
    with ops.use(kernels):
        for function in (layer, compiled):
            y = function(tensors)
            results.append((y, *torch.autograd.grad(y.double().square().sum(), list(tensors.values()))))
    for mine, plain in zip(*results):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_compiles_forward_and_backward(draw, act):
    f = ops.fir_filter([1, 3, 3, 1]).to(draw(1).device)

    def layer(x, b):
        return ops.upsample2d(ops.bias_act(x, b, act=act, clamp=2), f)

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, b = draw(2, 3, 4, 4, dtype=torch.float32).requires_grad_(), draw(3, dtype=torch.float32).requires_grad_()
    results = []
    for function in (layer, compiled):
        y = function(x, b)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, b))))
    for mine, plain in zip(*results):
        torch.testing.assert_close(mine, plain)


# ---------------------------------------------------------------------------------------------------------------------
# Bad input: a sentence that names the argument


@pytest.mark.parametrize(
    "change, message",
    [
        ({"b": lambda t: t.double()}, "b must be float32"),
        ({"b": lambda t: t[:2]}, r"b has the wrong shape \[2\]"),
        ({"scale": lambda t: t[:1]}, "scale has the wrong shape"),
        ({"noise": lambda t: t.expand(3, -1, -1, -1)}, "noise must be"),
        ({"x": lambda t: t.int()}, "x must be float32, float16, bfloat16 or float64"),
        ({"x": lambda t: t[0, 0, 0]}, "x must have at least 2 dimensions"),
        ({"act": lambda t: "gelu"}, "no activation gelu"),
    ],
)
def test_bias_act_refuses(draw, change, message):
    given = {"x": draw(2, 4, 5, 6, dtype=torch.float32), "scale": draw(2, 4, dtype=torch.float32)}
    given |= {"noise": draw(1, 1, 5, 6, dtype=torch.float32), "b": draw(4, dtype=torch.float32), "act": "lrelu"}
    given |= {name: function(given[name]) for name, function in change.items()}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.bias_act(*given.values(), 1.0, 0.2, math.inf)


@pytest.mark.parametrize(
    "x, f, how, message",
    [
        ((3, 4, 4), (4,), (1, 1, [0] * 4), "x must be"),
        ((1, 3, 4, 4), (4, 4, 4), (1, 1, [0] * 4), "f must be"),
        ((1, 3, 4, 4), (6,), (1, 1, [0] * 4), "does not fit a padded image"),
        ((1, 3, 4, 4), (4,), (1, 1, [-4, 0, 0, 0]), "does not fit a padded image"),
        ((1, 3, 4, 4), (4,), (0, 1, [0] * 4), "up and down must be"),
        ((1, 3, 4, 4), (4,), (1, 1, [0] * 3), "padding must be"),
    ],
)
def test_upfirdn2d_refuses(draw, x, f, how, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.upfirdn2d(draw(*x, dtype=torch.float32), draw(*f, dtype=torch.float32), *how, False, 1.0)


def test_modulated_conv2d_refuses(draw):
    x, w, style = draw(2, 4, 5, 5), draw(6, 4, 3, 3), draw(2, 4, dtype=torch.float32)
    rest = (None, None, None, 1, 0.2, 1.0, math.inf)
    for given, message in [
        ((x, w, style), "x must be float16 or bfloat16"),
        ((x.half(), w, style), "w must have the dtype of x"),
        ((x.half(), w.half()[:, :3], style), "w must be"),
        ((x.half(), w.half(), style[:1]), "style has the wrong shape"),
        ((x.half(), w.half(), style.half()), "style must be float32"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.sgan.modulated_conv2d(*given, *rest)


# ---------------------------------------------------------------------------------------------------------------------
# What only a GPU can show


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@ops.use("cuda")
def test_a_side_stream_and_a_cuda_graph():
    """Forward and backward, captured once and replayed on new numbers."""
    x = torch.randn(2, 8, 16, 16, device="cuda", dtype=torch.float16, requires_grad=True)
    b, f = torch.randn(8, device="cuda", requires_grad=True), ops.fir_filter([1, 3, 3, 1]).cuda()

    def step():
        y = ops.upsample2d(ops.bias_act(x, b, act="lrelu"), f)
        return y, *torch.autograd.grad(y.float().square().sum(), (x, b))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for mine, eager in zip(captured, step()):
        torch.testing.assert_close(mine, eager)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_bundled_model_draws_the_same_by_both_paths():
    G = stylegan_cli.load(device="cuda")
    z = torch.randn(4, G.config.z_dim, device="cuda")
    images = []
    for kernels in ("cuda", "reference"):
        with ops.use(kernels), torch.no_grad():
            images.append(G(z, truncation_psi=0.7))
    assert ((images[0] - images[1]).abs() <= 2 / 255).float().mean() > 0.999
