"""The ops with their kernels, called from Python: on emulated kernels, and on a GPU if there is one.

Emulated kernels are the same csrc/library.cpp and csrc/*.cu, registered for the CPU.
"""

import functools
import itertools
import math
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import stylegan_cli
from stylegan_cli import ops
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.ops.bias_act import ACTIVATIONS
from stylegan_cli.ops.modulated_conv2d import pack_weights


def rms_error(result, exact):
    return (result.double() - exact).square().mean().sqrt().item()


def modulated_arguments(randn, dtype, up=1, k=3, channels=(5, 4), size=(4, 5)):
    """Arguments with a gradient, and the others."""
    i, o = channels
    h, w = size[0] * up, size[1] * up
    tensors = {
        "x": randn(2, i, *size, dtype=dtype),
        "w": randn(o, i, k, k) / (k * i**0.5),
        "style": 1 + randn(2, i) / 3,
    }
    tensors |= {"noise": randn(2, 1, h, w), "noise_strength": randn(1).squeeze(0), "b": randn(o)}
    f = torch.tensor([1.0, 3.0, 5.0, 2.0], device=tensors["x"].device).double() / 11
    return tensors, {"up": up, "f": f, "act": "lrelu", "clamp": 1.5}


# ---------------------------------------------------------------------------------------------------------------------
# Derivatives, in float64


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_bias_act_is_differentiable_twice(randn, act, clamp):
    x, b = randn(2, 3, 2, 2).requires_grad_(), randn(3).requires_grad_()
    function = functools.partial(ops.bias_act, act=act, clamp=clamp, gain=1.3)
    assert gradcheck(function, (x, b)) and gradgradcheck(function, (x, b))


@pytest.mark.parametrize("options", [{"gain": -1}, {"alpha": -0.2}], ids=str)
def test_lrelu_whose_output_does_not_determine_the_sign(randn, options):
    x, b = randn(2, 3, 2, 2).requires_grad_(), randn(3).requires_grad_()
    function = functools.partial(ops.bias_act, act="lrelu", **options)
    assert gradcheck(function, (x, b)) and gradgradcheck(function, (x, b))


def test_the_scale_gradient_is_not_summed_in_half_precision(randn):
    x, scale = torch.full_like(randn(1, 2, 4, 4), 15000).half(), randn(1, 2, dtype=torch.float32).requires_grad_()
    y = torch.ops.sgan.bias_act(x, scale, None, None, "linear", 1.0, 0.2, math.inf)
    (dscale,) = torch.autograd.grad(y, scale, torch.full_like(y, 8))
    assert torch.equal(dscale, torch.full_like(dscale, 15000.0 * 8 * 16))


def test_bias_act_has_no_third_derivative(randn):
    x = randn(1, 2).requires_grad_()
    y = ops.bias_act(x, act="swish")
    first = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="differentiable twice"):
        second.sum().backward()


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", [(4,), (3, 4)])
def test_upfirdn2d_is_differentiable_twice(randn, up, down, taps):
    x, f = randn(1, 2, 4, 5).requires_grad_(), randn(*taps)
    function = functools.partial(ops.upfirdn2d, f=f, up=up, down=down, padding=(2, 1, 3, 1))
    assert gradcheck(function, (x,)) and gradgradcheck(function, (x,))


@pytest.mark.parametrize("up, k, demodulate", [(1, 3, True), (2, 3, True), (1, 1, False)])
def test_modulated_conv2d_is_differentiable_twice(randn, up, k, demodulate):
    tensors, rest = modulated_arguments(randn, torch.float64, up, k, channels=(2, 2), size=(3, 2))
    tensors = {name: t.requires_grad_() for name, t in tensors.items()}

    def function(*values):
        return ops.modulated_conv2d(**dict(zip(tensors, values)), **rest, demodulate=demodulate)

    assert gradcheck(function, tuple(tensors.values())) and gradgradcheck(function, tuple(tensors.values()))


# ---------------------------------------------------------------------------------------------------------------------
# Precision: errors at most twice those of PyTorch operations in the same type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernels", ["cuda", "fused"])
@pytest.mark.parametrize("up, k", [(1, 3), (2, 3), (1, 1)])
def test_modulated_conv2d_in_half_precision(randn, dtype, kernels, up, k):
    tensors, rest = modulated_arguments(randn, dtype, up, k, channels=(24, 16), size=(7, 6))
    rest["clamp"] = None  # rounding would decide which numbers near the bound have a gradient

    def outputs(implementation, precision):
        inputs = {name: t.to(precision if name == "x" else torch.float64) for name, t in tensors.items()}
        inputs = {name: t.detach().requires_grad_() for name, t in inputs.items()}
        with ops.use(implementation):
            y = ops.modulated_conv2d(**inputs, **rest, demodulate=k == 3)
        first = torch.autograd.grad(y.double().square().sum(), list(inputs.values()), create_graph=True)
        second = torch.autograd.grad(first[0].double().square().mean(), [inputs["x"], inputs["style"], inputs["w"]])
        return {
            "y": y,
            **{f"d{n}": g for n, g in zip(inputs, first)},
            **{f"second {i}": g for i, g in enumerate(second)},
        }

    results, plain, exact = outputs(kernels, dtype), outputs("reference", dtype), outputs("reference", torch.float64)
    for name in exact:
        # The gradient of noise_strength is a single number: the error of plain PyTorch can be small by chance.
        slack = torch.finfo(dtype).eps / 8 * rms_error(exact[name], torch.zeros_like(exact[name]))
        assert rms_error(results[name], exact[name]) <= 2 * rms_error(plain[name], exact[name]) + slack, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_bias_act_and_upfirdn2d_in_low_precision(randn, dtype):
    x, b, f = randn(2, 8, 9, 8, dtype=dtype), randn(8, dtype=dtype), ops.fir_filter([1, 3, 3, 1]).to(randn(1).device)
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
def test_any_shape(randn, shape):
    x, b = randn(*shape, dtype=torch.float32), randn(shape[1], dtype=torch.float32)
    assert torch.equal(ops.bias_act(x, b, act="lrelu"), ops.use("reference")(ops.bias_act)(x, b, act="lrelu"))


def test_any_strides(randn):
    x = randn(6, 5, 4, 3, dtype=torch.float32).permute(3, 2, 0, 1)[:, :, ::2]
    b, f = randn(4, dtype=torch.float32), ops.fir_filter([1, 3, 3, 1]).to(x.device)
    torch.testing.assert_close(ops.bias_act(x, b, act="lrelu"), ops.use("reference")(ops.bias_act)(x, b, act="lrelu"))
    torch.testing.assert_close(ops.upsample2d(x, f), ops.use("reference")(ops.upsample2d)(x, f))


@pytest.mark.parametrize("kernels", ["cuda", "fused"])
def test_channels_last_stays_channels_last(randn, kernels):
    tensors, rest = modulated_arguments(randn, torch.float16)
    tensors["x"] = tensors["x"].contiguous(memory_format=torch.channels_last)
    with ops.use(kernels):
        y = ops.modulated_conv2d(**tensors, **rest)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_bias_gradient_is_deterministic(randn):
    x, b = randn(4, 8, 9, 9, dtype=torch.float16), randn(8, dtype=torch.float32).requires_grad_()
    losses = [ops.bias_act(x, b, act="lrelu").float().square().sum() for _ in range(2)]
    assert torch.equal(*(torch.autograd.grad(loss, b)[0] for loss in losses))


def test_a_generator_and_its_gradients(device):
    """The whole network with kernels and with references, including double-backward gradients as in R1."""
    torch.manual_seed(0)
    config = {"height": 16, "width": 16, "channels": 3, "c_dim": 0, "channel_base": 256, "channel_max": 16}
    G = build_generator(StyleGAN2Config(**config, z_dim=8, w_dim=8, mapping_layers=2)).to(device)
    D = build_discriminator(LevelsDiscriminatorConfig(**config)).to(device)
    z = torch.randn(4, 8, device=device)

    def gradients():
        image = G(z)
        score = D(image)
        (slope,) = torch.autograd.grad(score.sum(), image, create_graph=True)
        loss = score.mean() + slope.square().sum()
        return [image, score, *torch.autograd.grad(loss, [*G.parameters(), *D.parameters()], allow_unused=True)]

    for result, exact in zip(gradients(), ops.use("reference")(gradients)()):
        if exact is not None:
            torch.testing.assert_close(result, exact, rtol=2e-4, atol=2e-4 * exact.abs().max().item() + 1e-6)


@pytest.mark.parametrize("implementation", ["cuda", "fused"])
@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_frozen_synthesis(device, implementation, dtype):
    """As close to full precision as the network itself; five times, so that a GPU captures and replays a graph."""
    torch.manual_seed(0)
    sizes = {"channel_base": 256, "channel_max": 16, "z_dim": 8, "w_dim": 8}
    G = build_generator(StyleGAN2Config(16, 16, mapping_layers=2, **sizes)).to(device).requires_grad_(False)
    for name, weight in G.synthesis.named_parameters():
        if name.endswith(("bias", "strength")):
            weight.add_(0.3)
    frozen = frozen_synthesis(G)
    for k in range(5):
        ws = G.mapping(torch.randn(3, 8, device=device)) + k
        exact = ops.use("reference")(G.synthesis)(ws)
        with ops.use(implementation):
            plain, result = G.synthesis(ws, dtype=dtype), frozen(ws, dtype=dtype)
        assert rms_error(result, exact) <= 1.5 * rms_error(plain, exact) + 1e-6 * exact.abs().max()


def test_large_factors_and_short_filters_use_the_general_kernel(randn):
    x = randn(1, 2, 24, 24, dtype=torch.float32)
    f = ops.fir_filter([1, 3, 3, 1]).to(x.device)
    for options in ({"down": 11}, {"up": 11}):
        plain = ops.use("reference")(ops.upfirdn2d)(x, f, padding=2, **options)
        torch.testing.assert_close(ops.upfirdn2d(x, f, padding=2, **options), plain)
    x[0, 0, 12, 12] = math.inf
    y = ops.upfirdn2d(x, ops.fir_filter([1, 2, 1]).to(x.device), padding=1)
    assert not y.isnan().any()


def test_infinity_reaches_only_the_outputs_that_need_it(randn):
    f = ops.fir_filter([1, 3, 3, 1]).to(randn(1).device)
    for c, layout in itertools.product((3, 8), (torch.contiguous_format, torch.channels_last)):
        x = randn(1, c, 9, 10, dtype=torch.float32).contiguous(memory_format=layout)
        x[0, 1, 4, 5] = math.inf
        for options in ({"padding": (2, 1, 3, 0)}, {"up": 2, "padding": (2, 1, 3, 1)}, {"down": 2, "padding": 1}):
            plain = ops.use("reference")(ops.upfirdn2d)(x, f, **options)
            assert torch.equal(ops.upfirdn2d(x, f, **options).isfinite(), plain.isfinite())


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch's own checks: schema, fake implementation, autograd, compile


def test_opcheck(randn):
    x = randn(2, 4, 5, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    scale, noise, b = randn(2, 4, dtype=x.dtype), randn(1, 1, 5, 6, dtype=x.dtype), randn(4, dtype=x.dtype)
    f = ops.fir_filter([1, 3, 3, 1]).to(x.device)
    operands, leaves = (scale, noise, b), [t.clone().requires_grad_() for t in (x, scale, noise, b)]
    sgan = torch.ops.sgan
    for act in ("lrelu", "swish"):
        params = (act, 1.3, 0.2, 2.0)
        torch.library.opcheck(sgan.bias_act.default, (*leaves, *params))
    torch.library.opcheck(sgan.bias_act.default, (leaves[0].detach().contiguous(), None, None, None, *params))
    torch.library.opcheck(sgan.bias_act_backward.default, (leaves[0], None, x, *operands, *params))
    from_y = (leaves[0], x, None, None, None, None, "lrelu", 1.0, 0.2, 2.0)
    torch.library.opcheck(sgan.bias_act_backward.default, from_y)
    torch.library.opcheck(sgan.bias_act_double_backward.default, (x, x, x, *operands, *params))
    torch.library.opcheck(sgan.upfirdn2d.default, (leaves[0], f, 2, 1, [2, 1, 2, 1], False, 4.0))
    h = x.half().requires_grad_()
    w = randn(4, 4, 3, 3, dtype=h.dtype).requires_grad_()
    style, d = randn(2, 4, dtype=torch.float32).requires_grad_(), randn(2, 4, dtype=torch.float32).requires_grad_()
    upsampled_noise = randn(2, 1, 10, 12, dtype=torch.float32)
    operands = (pack_weights(w.detach()), style, d, upsampled_noise, b.clone().requires_grad_(), f)
    arguments = (h, w, *operands, 0.2, 1.3, 2.0)
    torch.library.opcheck(sgan.modulated_conv2d.default, arguments)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_without_a_kernel_use_the_composite(randn, monkeypatch, act):
    x, calls, epilogue = randn(2, 3), [], sys.modules["stylegan_cli.ops.bias_act"].epilogue
    for name in ("bias_act", "modulated_conv2d"):
        spy = lambda *args: calls.append(args) or epilogue(*args)  # noqa: E731
        monkeypatch.setattr(sys.modules[f"stylegan_cli.ops.{name}"], "epilogue", spy)
    y = ops.bias_act(x, act=act, gain=2)
    torch.testing.assert_close(y, ops.use("reference")(ops.bias_act)(x, act=act, gain=2))
    tensors, rest = modulated_arguments(randn, torch.float64)
    y = ops.modulated_conv2d(**tensors, **rest | {"act": act})
    torch.testing.assert_close(y, ops.use("reference")(ops.modulated_conv2d)(**tensors, **rest | {"act": act}))
    assert len(calls) == (0 if act in ("elu", "selu", "softplus") else 2)


@pytest.mark.parametrize("kernels", ["cuda", "fused", "composite", "reference"])
def test_a_modulated_layer_compiles(randn, kernels):
    tensors, rest = modulated_arguments(randn, torch.float16, up=2)
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
    for eager, traced in zip(*results):
        torch.testing.assert_close(traced, eager)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_compiles_forward_and_backward(randn, act):
    f = ops.fir_filter([1, 3, 3, 1]).to(randn(1).device)

    def layer(x, b):
        return ops.upsample2d(ops.bias_act(x, b, act=act, clamp=2), f)

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, b = randn(2, 3, 4, 4, dtype=torch.float32).requires_grad_(), randn(3, dtype=torch.float32).requires_grad_()
    results = []
    for function in (layer, compiled):
        y = function(x, b)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, b))))
    for eager, traced in zip(*results):
        torch.testing.assert_close(traced, eager)


# ---------------------------------------------------------------------------------------------------------------------
# Invalid input: messages name the argument


@pytest.mark.parametrize(
    "change, message",
    [
        ({"b": lambda t: t.double()}, "b must be float32"),
        ({"b": lambda t: t[:2]}, r"b has the wrong shape \[2\]"),
        ({"scale": lambda t: t[:1]}, "scale has the wrong shape"),
        ({"noise": lambda t: t.repeat(3, 1, 1, 1)}, "noise must have 1 or 2 samples"),
        ({"x": lambda t: t.int()}, "x must be float32, float16, bfloat16 or float64"),
        ({"x": lambda t: t[0, 0, 0]}, "x must have at least 2 dimensions"),
        ({"act": lambda t: "gelu"}, "known activation, not gelu"),
    ],
)
def test_bias_act_refuses(randn, change, message):
    arguments = {"x": randn(2, 4, 5, 6, dtype=torch.float32), "scale": randn(2, 4, dtype=torch.float32)}
    arguments |= {"noise": randn(1, 1, 5, 6, dtype=torch.float32), "b": randn(4, dtype=torch.float32), "act": "lrelu"}
    arguments |= {name: function(arguments[name]) for name, function in change.items()}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.bias_act(*arguments.values(), 1.0, 0.2, math.inf)


@pytest.mark.parametrize(
    "x, f, params, message",
    [
        ((3, 4, 4), (4,), (1, 1, [0] * 4), "x must be"),
        ((1, 3, 4, 4), (4, 4, 4), (1, 1, [0] * 4), "f must be"),
        ((1, 3, 4, 4), (6,), (1, 1, [0] * 4), "does not fit into a padded image"),
        ((1, 3, 4, 4), (4,), (1, 1, [-4, 0, 0, 0]), "does not fit into a padded image"),
        ((1, 3, 4, 4), (4,), (0, 1, [0] * 4), "up and down must be"),
        ((1, 3, 4, 4), (4,), (1, 1, [0] * 3), "padding must be"),
    ],
)
def test_upfirdn2d_refuses(randn, x, f, params, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.upfirdn2d(randn(*x, dtype=torch.float32), randn(*f, dtype=torch.float32), *params, False, 1.0)


def test_modulated_conv2d_refuses(randn):
    x, w, style = randn(2, 4, 5, 5), randn(6, 4, 3, 3), randn(2, 4, dtype=torch.float32)
    rest, packed = (None, None, None, None, 0.2, 1.0, math.inf), pack_weights(w.half())
    for tensors, message in [
        ((x, w, packed, style), "x must be float16 or bfloat16"),
        ((x.half(), w, packed.float(), style), "packed must have the dtype of x"),
        ((x.half(), w, packed[:, :8], style), "packed must be the result of pack_weights"),
        ((x.half(), w[:, :3], packed, style), "w must be"),
        ((x.half(), w, packed, style[:1]), "style has the wrong shape"),
        ((x.half(), w, packed, style.half()), "style must be float32"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.sgan.modulated_conv2d(*tensors, *rest)


# ---------------------------------------------------------------------------------------------------------------------
# GPU only


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
    for replayed, eager in zip(captured, step()):
        torch.testing.assert_close(replayed, eager)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_bundled_model_gives_the_same_images_with_kernels():
    G = stylegan_cli.load(device="cuda")
    z = torch.randn(4, G.config.z_dim, device="cuda")
    images = []
    for kernels in ("cuda", "reference"):
        with ops.use(kernels), torch.no_grad():
            images.append(G(z, truncation_psi=0.7))
    assert ((images[0] - images[1]).abs() <= 2 / 255).float().mean() > 0.999
