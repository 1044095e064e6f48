"""Modulated convolution against a convolution with per-sample weights."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.ops import modulated_conv2d

F = torch.tensor([1.0, 2.0, 4.0, 3.0]) / 10  # asymmetric, to detect a flipped filter
NAMES = ["x", "w", "style", "noise", "noise_strength", "b"]


@pytest.fixture
def arguments(random):
    """Matching tensors: arguments(up=2, k=3, ...) -> keyword arguments of `modulated_conv2d`."""

    def make(n=2, i=3, o=4, h=4, w=5, k=3, up=1, shared_noise=False):
        return {
            "x": random(n, i, h, w),
            "w": random(o, i, k, k),
            "style": random(n, i),
            "noise": random(1 if shared_noise else n, 1, h * up, w * up),
            "noise_strength": random(1)[0],
            "b": random(o),
            "f": F.double(),
            "up": up,
        }

    return make


def expected(dense, a, demodulate=True, **epilogue):
    y = torch.from_numpy(dense.modulated_conv(a["x"], a["w"], a["style"], a["f"], a["up"], demodulate))
    if a["noise"] is not None:
        y = y + a["noise"] * a["noise_strength"]
    return torch.from_numpy(dense.bias_act(y, a["b"], **epilogue))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shared_noise", [True, False])
def test_equation(dense, arguments, demodulate, up, k, shared_noise):
    a = arguments(k=k, up=up, shared_noise=shared_noise)
    y = modulated_conv2d(**a, demodulate=demodulate)
    assert y.shape == (2, 4, 4 * up, 5 * up)
    assert torch.allclose(y, expected(dense, a, demodulate), rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (0.5, None), (None, 0.6), (1.5, 0.6)])
def test_epilogue(dense, arguments, act, up, gain, clamp):
    a = arguments(up=up)
    y = modulated_conv2d(**a, act=act, gain=gain, clamp=clamp)
    assert torch.allclose(y, expected(dense, a, act=act, gain=gain, clamp=clamp), rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("omitted", [["noise", "noise_strength"], ["b"], ["noise", "noise_strength", "b"]])
def test_without_noise_or_bias(dense, arguments, omitted):
    a = arguments() | dict.fromkeys(omitted)
    y = modulated_conv2d(**a, act="lrelu")
    assert torch.allclose(y, expected(dense, a, act="lrelu"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("up", [1, 2])
def test_equation_with_many_channels(dense, arguments, up):
    a = arguments(i=70, o=66, up=up)
    assert torch.allclose(modulated_conv2d(**a), expected(dense, a), rtol=1e-9, atol=1e-10)


def test_demodulated_output_has_unit_variance(random):
    x, w, style = random(4, 64, 16, 16), 7 * random(32, 64, 3, 3), 5 * random(4, 64)
    y = modulated_conv2d(x, w, style)[:, :, 1:-1, 1:-1]
    assert y.square().mean() == pytest.approx(1, abs=0.1)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("names", [NAMES, *([name] for name in NAMES)], ids="+".join)
@pytest.mark.parametrize(
    "options",
    [{"up": 1, "demodulate": True}, {"up": 2, "demodulate": True}, {"up": 1, "demodulate": False, "k": 1}],
    ids=str,
)
def test_derivatives(arguments, names, options):
    options = dict(options)
    demodulate = options.pop("demodulate")
    a = arguments(n=2, i=2, o=2, h=3, w=2, **options)

    def function(*tensors):
        replaced = a | dict(zip(names, tensors, strict=True))
        return modulated_conv2d(**replaced, demodulate=demodulate, act="lrelu", clamp=1.5)

    tensors = tuple(a[name].clone().requires_grad_(True) for name in names)
    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors, atol=1e-4)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("channels", [(3, 5), (64, 72)])
def test_auto_equals_the_reference_in_all_derivatives(arguments, up, act, channels):
    a = arguments(i=channels[0], o=channels[1], up=up)
    inputs = [a[name].requires_grad_(True) for name in NAMES]
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            y = modulated_conv2d(**a, act=act, clamp=2)
        first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((y, *first, *second))
    for auto, reference in zip(*results):
        assert torch.allclose(auto, reference, rtol=1e-9, atol=1e-9 * reference.abs().max().item())


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("up", [1, 2])
def test_channels_last(arguments, up):
    a = arguments(i=8, o=8, up=up)
    last = {name: a[name].contiguous(memory_format=torch.channels_last) for name in ("x", "w")}
    y = modulated_conv2d(**a, act="lrelu")
    assert torch.allclose(modulated_conv2d(**a | last, act="lrelu"), y, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------ half precision


def plain(x, w, style, f, up, noise, strength, b, dtype):
    """Grouped convolution with per-sample weights, computed in one dtype."""
    x, w, style, f, noise, strength, b = (t.to(dtype) for t in (x, w, style, f, noise, strength, b))
    n, i = style.shape
    weight = w[None] * style[:, None, :, None, None]
    weight = weight * (weight.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if up == 1:
        y = torch.nn.functional.conv2d(x.reshape(1, n * i, *x.shape[2:]), weight.flatten(0, 1), padding=1, groups=n)
    else:
        flat = weight.transpose(1, 2).flatten(0, 1)
        y = torch.nn.functional.conv_transpose2d(x.reshape(1, n * i, *x.shape[2:]), flat, stride=2, groups=n)
        taps = (f.outer(f) * 4).flip([0, 1]).expand(y.shape[1], 1, -1, -1)
        y = torch.nn.functional.conv2d(y, taps, padding=1, groups=y.shape[1])
    y = y.reshape(n, -1, *y.shape[2:]) + noise * strength + b[None, :, None, None]
    return torch.nn.functional.leaky_relu(y, 0.2) * 2**0.5


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("weights", ["half", "float32"])
def test_half_precision(arguments, rms_error, dtype, up, weights):
    a = arguments(i=16, o=16, h=8, w=8, up=up)
    a = {k: v.to(dtype).float() if isinstance(v, torch.Tensor) else v for k, v in a.items()}
    a["f"] = F
    with ops.use("reference"):
        exact = modulated_conv2d(**a, act="lrelu")
    dtypes = dict.fromkeys(NAMES if weights == "half" else ["x"], dtype)
    result = modulated_conv2d(**{k: v.to(dtypes[k]) if k in dtypes else v for k, v in a.items()}, act="lrelu")
    grouped = plain(a["x"], a["w"], a["style"], F, up, a["noise"], a["noise_strength"], a["b"], dtype)
    assert result.dtype == dtype
    assert rms_error(result, exact) <= 2 * rms_error(grouped, exact)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_styles_outside_the_range_of_half_precision(arguments, up, scale):
    a = arguments(i=32, o=8, h=8, w=8, up=up)
    a = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in a.items()}
    a["style"] = a["style"] * scale
    with ops.use("reference"):
        exact = modulated_conv2d(**a)
    result = modulated_conv2d(**a | {"x": a["x"].half()})
    assert result.isfinite().all()
    assert (result.float() - exact).abs().max() < 0.01 * exact.abs().max()


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("up", [1, 2])
def test_no_intermediate_overflow(up):
    """512 channels at the clamp of the previous layer: the result is in range, and intermediate values must be too."""
    x = torch.full([1, 512, 8, 8], 256.0)
    w, style = torch.ones(2, 512, 3, 3), torch.ones(1, 512)
    with ops.use("reference"):
        exact = modulated_conv2d(x, w, style, up=up, f=F)
    assert exact.abs().max() < 65504
    result = modulated_conv2d(x.half(), w, style, up=up, f=F)
    assert result.isfinite().all()
    assert torch.allclose(result.float(), exact, rtol=0.01)


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "shape"), [("style", (2, 4)), ("style", (3, 3)), ("style", (3,)), ("w", (4, 2, 3, 3)), ("b", (3,))]
)
def test_shapes_that_do_not_match(arguments, name, shape):
    with pytest.raises(ValueError, match="do not match|must have shape"):
        modulated_conv2d(**arguments() | {name: torch.zeros(shape, dtype=torch.float64)})


@pytest.mark.parametrize("shape", [(2, 1, 3, 5), (3, 1, 4, 5), (2, 4, 4, 5), (1, 1, 1, 1)])
def test_noise_of_the_wrong_shape(arguments, shape):
    with pytest.raises(ValueError):
        modulated_conv2d(**arguments() | {"noise": torch.zeros(shape, dtype=torch.float64)})


def test_upsampling_without_a_filter(arguments):
    with pytest.raises(ValueError, match="filter"):
        modulated_conv2d(**arguments(up=2) | {"f": None})
