"""The kernels that only the discriminator needs, on the CPU: under the sanitizers, and as operators with their
derivatives."""

import contextlib

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_cli.layers import EqualConv2d
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator
from stylegan_cli.ops import append_minibatch_std, bias_act, fir_filter, upfirdn2d, use
from stylegan_cli.ops.activated_blur import activated_blur
from stylegan_cli.ops.composite import convolve
from stylegan_cli.ops.minibatch_std import append_minibatch_std_reference
from stylegan_cli.ops.scaled_weights import MOST, scaled_weights_of_layers

EPS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 1.1e-3, torch.bfloat16: 9e-3}
LAYOUTS = {"channels last": torch.channels_last, "planes": torch.contiguous_format}


def values(*shape, dtype=torch.float64, seed=0, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)


def acc(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_close(result, exact, what, eps):
    error, size = (result.double() - exact).abs().max().item(), max(1, exact.abs().max().item())
    assert error <= eps * size, f"{what}: {error} of {size}"  # NaN fails too


class Calls(TorchDispatchMode):
    """Counts the calls of an operator, and notes the shapes of their tensors."""

    def __init__(self, name):
        super().__init__()
        self.name, self.count, self.shapes = name, 0, set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.overloadpacket.__name__ == self.name:
            self.count += 1
            self.shapes |= {t.shape for t in args if isinstance(t, torch.Tensor)}
        return op(*args, **(kwargs or {}))


# ---------------------------------------------------------------------------------------------------------------------
# Weights of several layers

TYPES = [
    *((torch.float32, to) for to in (torch.float32, torch.float16, torch.bfloat16)),
    *((half, torch.float32) for half in (torch.float16, torch.bfloat16)),
    (torch.float64, torch.float64),
]


@pytest.mark.parametrize(("dtype", "to"), TYPES, ids=str)
@pytest.mark.parametrize("parts", [1, 2])
def test_scaled_sums_under_sanitizers(emulator, dtype, to, parts):
    """Sizes of no, some and many whole vectors, one with a part only; a tensor that is not aligned."""
    sizes, gains = [1, 4, 4099, 0, 12, 8193], [0.5, -2.0, 0.3, 1.0, 1.5, 0.7]
    a = [values(n, dtype=dtype) for n in sizes]
    a[4] = values(13, dtype=dtype)[1:]
    b = [values(n, dtype=dtype, seed=1) if n != 12 else None for n in sizes] if parts == 2 else []
    out, rest = [torch.empty(n, dtype=to) for n in sizes], [0] * (MOST - len(sizes))
    fields = {"a": a, "b": b, "out": out, "numel": sizes + rest, "gain": gains + rest, "count": len(sizes)}
    emulator.call("scaled_sums", **fields, **{"from": dtype, "to": to})
    for i, gain in enumerate(gains):
        other = b[i].double() if parts == 2 and b[i] is not None else 0
        if sizes[i]:
            assert_close(out[i], gain * (a[i].double() + other), sizes[i], max(EPS[to], EPS[dtype] / 1000))


@pytest.mark.parametrize("change", [{"count": 0}, {"count": 33}, {"to": torch.float64}, {"from": torch.float16}])
def test_scaled_sums_refuse(emulator, change):
    fields = {"numel": [1] * MOST, "gain": [1] * MOST, "count": 1, "from": torch.bfloat16, "to": torch.float16}
    with pytest.raises(RuntimeError, match="between 1 and 32 tensors|accumulation type"):
        emulator.call("scaled_sums", **fields | change)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scaled_weights_are_differentiable_twice(device, layout):
    weights = [values(2, 3, k, k, layout=LAYOUTS[layout]).to(device).requires_grad_() for k in (3, 1, 1)]

    def function(*weights):
        scaled = scaled_weights_of_layers(weights, [0.5, 2.0, -1.0], torch.float64)
        assert all(torch.equal(*pair) for pair in scaled)
        return [scaled[0][0] * scaled[0][1], scaled[1][0] * 1, scaled[2][1] * 1]  # of both, of one, of the other

    assert gradcheck(function, weights) and gradgradcheck(function, weights)
    g = values(2, 3, 3, 3).to(device).requires_grad_()
    (dw,) = torch.autograd.grad(function(*weights)[1:], weights[1], [g[:, :, :1, :1]] * 2, create_graph=True)
    assert torch.equal(torch.autograd.grad(dw.sum(), g)[0].unique().cpu(), torch.tensor([0.0, 2.0], dtype=g.dtype))


def test_more_weights_than_a_launch_takes(device):
    weights = [values(2, 1 + i, 1, 1, dtype=torch.float32).to(device).requires_grad_() for i in range(MOST + 3)]
    gains = [1 + i / 8 for i in range(len(weights))]
    with Calls("scaled_sums") as seen:
        scaled = scaled_weights_of_layers(weights, gains, torch.bfloat16)
        for (once, again), w, gain in zip(scaled, weights, gains, strict=True):
            assert once.dtype == torch.bfloat16 and torch.equal(once, (w * gain).bfloat16()) and again is not once
        sum((once.float().sum() + 2 * again.float().sum()) for once, again in scaled[:-1]).backward()
    assert seen.count == 4, "two forward, two backward"
    for w, gain in zip(weights[:-1], gains):
        torch.testing.assert_close(w.grad, torch.full_like(w, 3 * gain))
    assert weights[-1].grad is None, "no gradient arrives"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [torch.zeros(2, 3)]}, r"\[O, I, k, k\]"),
        ({"b": [torch.zeros(2, 3, 1, 1)] * 2}, "as many tensors"),
        ({"b": [torch.zeros(2, 3, 1, 1).half()]}, "dtype of the other"),
        ({"b": [torch.zeros(2, 3, 1, 2)]}, "must have shape"),
        ({"gain": []}, "a gain for each"),
    ],
)
def test_scaled_sums_of_other_tensors(device, change, message):
    arguments = {"a": [torch.zeros(2, 3, 1, 1)], "b": [], "gain": [1.0]} | change
    a, b, gain = ([t.to(device) if isinstance(t, torch.Tensor) else t for t in part] for part in arguments.values())
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.scaled_sums(a, b, gain, 0)


def test_opcheck_of_scaled_sums(device):
    a, b = ([values(2, 3, k, k, dtype=torch.float32, seed=s).to(device) for k in (1, 3)] for s in (0, 1))
    torch.library.opcheck(torch.ops.sgan.scaled_sums.default, (a, [], [1.0, 2.0], 1))
    torch.library.opcheck(torch.ops.sgan.scaled_sums.default, (a, b, [1.0, 2.0], 0))


def test_second_derivatives_of_a_convolution_go_to_the_other_weight(device):
    """A gradient of images depends on the weights that it is computed with, not on those of the images."""
    x, dy = values(2, 3, 5, 5).to(device).requires_grad_(), values(2, 4, 5, 5).to(device)
    w = values(4, 3, 3, 3).to(device)
    once, again = w.clone().requires_grad_(), w.clone().requires_grad_()

    def penalty(y):
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        return dx.square().sum()

    y = convolve(x, once, padding=1, again=again)
    first, second = torch.autograd.grad(penalty(y) + (y * dy).sum(), (once, again))
    both = w.clone().requires_grad_()
    y = convolve(x, both, padding=1)
    torch.testing.assert_close(first, torch.autograd.grad((y * dy).sum(), both, retain_graph=True)[0])
    torch.testing.assert_close(second, torch.autograd.grad(penalty(y), both)[0])


# ---------------------------------------------------------------------------------------------------------------------
# Minibatch standard deviation


def deviation_calls(dtype, shape, group, sets, layout):
    """All launches, and [(name, result, exact)]."""
    n, c, h, w = shape
    x, u = (values(*shape, dtype=dtype, seed=seed, layout=layout) for seed in (0, 1))
    dout = values(n, c + sets, h, w, dtype=dtype, seed=2, layout=layout)
    exact_x, exact_dout = x.double().requires_grad_(), dout.double().requires_grad_()
    exact = append_minibatch_std_reference(exact_x, group, sets)
    (exact_dx,) = torch.autograd.grad(exact, exact_x, exact_dout, create_graph=True)
    second = torch.autograd.grad(exact_dx, (exact_dout, exact_x), u.double())
    out, dx, cdout, cx = (torch.empty_like(t) for t in (dout, x, dout, x))
    shared = {"x": x, "n": n, "c": c, "p": h * w, "sets": sets, "group": group, "dtype": dtype}
    shared["channels_last"] = int(layout == torch.channels_last)
    calls = [{"out": out}, {"dout": dout, "dx": dx}, {"dout": dout, "u": u, "out": cdout, "dx": cx}]
    calls = [("minibatch_std", shared | call | {"order": order}) for order, call in enumerate(calls)]
    results = zip(("out", "dx", "cdout", "cx"), (out, dx, cdout, cx), (exact.detach(), exact_dx.detach(), *second))
    return calls, list(results)


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_minibatch_std_under_sanitizers(emulator, dtype, layout):
    """Fewer numbers than threads, and more; one group, several, and one of a single image; two sets."""
    for shape, group, sets in [((8, 6, 3, 5), 4, 2), ((6, 140, 3, 3), 6, 1), ((3, 4, 2, 2), 1, 4)]:
        calls, results = deviation_calls(dtype, shape, group, sets, LAYOUTS[layout])
        emulator.run(calls)
        for name, result, exact in results:  # deviations of a single image divide by 1e-4
            assert_close(result, exact, (shape, name), EPS[dtype] * (1 if group > 1 else 2))


def test_minibatch_std_has_the_same_bits_in_any_order_of_threads(emulator):
    bits = []
    for seed in range(2):
        calls, results = deviation_calls(torch.float32, (4, 36, 4, 4), 2, 1, torch.channels_last)
        emulator.run(calls, seed=seed)
        bits.append([result for _, result, _ in results])
    assert all(torch.equal(*pair) for pair in zip(*bits))


def test_the_second_derivative_of_images_that_are_almost_equal(device):
    """A few times less exact than the reference at most, where rounding of the mean would be amplified."""
    x, u = (values(2, 64, 4, 4, dtype=torch.float32, seed=seed).to(device) for seed in (0, 1))
    x[1] = x[0] + 1e-4 * x[1]
    dy = values(2, 65, 4, 4, dtype=torch.float32, seed=2).to(device)

    def second(dtype):
        leaf = x.to(dtype).requires_grad_()
        (dx,) = torch.autograd.grad(append_minibatch_std(leaf, 2), leaf, dy.to(dtype), create_graph=True)
        return torch.autograd.grad(dx, leaf, u.to(dtype))[0].double()

    with use("reference"):
        exact, plain = second(torch.float64), second(torch.float32)
    assert (second(torch.float32) - exact).norm() <= 4 * (plain - exact).norm()


@pytest.mark.parametrize("change", [{"order": 3}, {"group": 3}, {"sets": 5}, {"group": 0}])
def test_minibatch_std_refuses(emulator, change):
    ((name, fields), *_), _ = deviation_calls(torch.float32, (4, 6, 2, 2), 2, 1, torch.channels_last)
    with pytest.raises(RuntimeError, match=r"order must|does not divide"):
        emulator.call(name, **fields | change)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("group", "sets"), [(2, 1), (4, 2), (None, 1)])
def test_minibatch_std_is_differentiable_twice(device, layout, group, sets):
    x = values(4, 2, 2, 2, layout=LAYOUTS[layout]).to(device).requires_grad_()
    y = append_minibatch_std(x, group, sets)
    assert y.is_contiguous(memory_format=LAYOUTS[layout])
    torch.testing.assert_close(y, append_minibatch_std_reference(x, group or 4, sets))
    assert gradcheck(append_minibatch_std, (x, group, sets)) and gradgradcheck(append_minibatch_std, (x, group, sets))


def test_minibatch_std_of_any_strides(device):
    x = values(4, 6, 4, 5, dtype=torch.float32).to(device)[:, ::2, :, 1:].requires_grad_()
    y = append_minibatch_std(x, 2)
    (dx,) = torch.autograd.grad(y, x, y.transpose(2, 3).contiguous().transpose(2, 3))
    exact = append_minibatch_std_reference(x, 2, 1)
    torch.testing.assert_close((y, dx), (exact, *torch.autograd.grad(exact, x, exact)))


def test_minibatch_std_of_no_images(device):
    for implementation in ("cuda", "reference"):
        with use(implementation):
            x = values(0, 6, 2, 2).to(device).requires_grad_()
            assert append_minibatch_std(x, 4, 2).shape == (0, 8, 2, 2)
            assert torch.autograd.grad(append_minibatch_std(x, None).sum(), x)[0].shape == x.shape


def test_opcheck_of_minibatch_std(device):
    x = values(4, 6, 2, 3, dtype=torch.float32, layout=torch.channels_last).to(device).requires_grad_()
    dy = values(4, 7, 2, 3, dtype=torch.float32, layout=torch.channels_last).to(device).requires_grad_()
    torch.library.opcheck(torch.ops.sgan.minibatch_std.default, (x, 2, 1))
    torch.library.opcheck(torch.ops.sgan.minibatch_std_backward.default, (dy, x, 2, 1))
    saved = (dy.detach(), x.detach(), 2, 1)
    torch.library.opcheck(torch.ops.sgan.minibatch_std_double_backward.default, (x.detach(), *saved))


# ---------------------------------------------------------------------------------------------------------------------
# Bias, activation and the filter after them

SLOPE, GAIN, CLAMP = 0.2, 1.3, 1.1


def activated_call(dtype, layout, c, taps, padding, size=(9, 11), b=True):
    x, f = values(2, c, *size, dtype=dtype, layout=layout), values(taps, dtype=acc(dtype)) / 3
    b = values(c, dtype=acc(dtype)) / 3 if b else None
    with use("reference"):
        activated = bias_act(x.double(), None if b is None else b.double(), "lrelu", GAIN, SLOPE, CLAMP)
        exact = upfirdn2d(activated, f.double(), padding=padding)
    out = torch.empty_like(exact, dtype=dtype).contiguous(memory_format=layout)
    fields = {"x": x, "f": f, "b": b, "y": out, "n": 2, "c": c, "h": size[0], "w": size[1], "dtype": dtype, "gain": 1}
    fields |= {"out_h": exact.shape[2], "out_w": exact.shape[3], "x_stride": x.stride(), "y_stride": out.stride()}
    fields |= {"pad_x": padding[0], "pad_y": padding[2], "up": 1, "down": 1, "flip": 0, "taps_x": taps, "taps_y": taps}
    fields |= {"separable": 1, "activates": 1, "slope": SLOPE, "act_gain": GAIN, "clamp": CLAMP}
    return fields, out, exact


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_activated_filters_under_sanitizers(emulator, dtype):
    """Vectors of channels, in several strips too; fewer channels, planes and other filters, by the general kernel."""
    last, planes = torch.channels_last, torch.contiguous_format
    cases = [(last, c, 4, padding) for c in (8, 40, 5) for padding in ((2, 2, 2, 2), (1, 3, -1, 5))]
    cases += [(last, 8, 4, (2, 1, 2, 1), (70, 35), False), (planes, 3, 4, (2, 2, 1, 1)), (last, 8, 3, (1, 1, 1, 1))]
    calls = [(case, *activated_call(dtype, *case)) for case in cases]
    emulator.run([("upfirdn2d", fields) for _, fields, _, _ in calls])
    for case, _, out, exact in calls:
        assert_close(out, exact, case, EPS[dtype])


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_slopes_from_what_precedes_the_activation(emulator, dtype):
    """The derivatives of the epilogue are those from its result, to the bit."""
    x, dy, gx = (values(2, 12, 5, 3, dtype=dtype, seed=seed, layout=torch.channels_last) for seed in range(3))
    b = values(12, dtype=acc(dtype)) / 3
    y = bias_act(x.to(b.dtype), b, "lrelu", GAIN, SLOPE, 1.0).to(dtype)
    assert (y == 1).any() and (y == -1).sum() < (y == 1).sum()
    shared = {"dy": dy, "n": 1, "c": 12, "p": 30, "noise_stride": 0, "dtype": dtype, "slope": SLOPE, "gain": GAIN}
    shared |= {"clamp": 1.0, "partial": torch.empty(4000, dtype=b.dtype)}
    found = []
    for saved in ({"y": y}, {"y": x, "b": b}):
        results = [torch.empty_like(t) for t in (dy, b, dy)]
        emulator.call("epilogue_grad", **shared, **saved, dx=results[0], db=results[1], order=1)
        emulator.call("epilogue_grad", **shared, **saved, gx=gx, gb=b, dx=results[2], order=2)
        found.append(results)
    assert all(torch.equal(*pair) for pair in zip(*found))


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("c", [4, 3], ids=["one pass", "two"])
def test_activated_blur_is_differentiable_twice(device, clamp, c):
    x = values(2, c, 3, 4, layout=torch.channels_last).to(device).requires_grad_()
    b, f = values(c).to(device).requires_grad_(), fir_filter((1, 3, 3, 1)).to(device)

    def function(x, b):
        return activated_blur((b, "lrelu", GAIN, clamp), x, f, 1, 1, (2, 1, 2, 2), False, 1.0)

    with Calls("activated_blur") as seen:
        y = function(x, b)
    assert seen.count == (c == 4)
    with use("reference"):
        exact = upfirdn2d(bias_act(x, b, "lrelu", GAIN, SLOPE, clamp), f, padding=(2, 1, 2, 2))
    torch.testing.assert_close(y, exact)
    assert gradcheck(function, (x, b)) and gradgradcheck(function, (x, b))


def test_activated_blur_refuses(device):
    x, b, f = values(1, 4, 3, 3).to(device), values(4).to(device), values(4).to(device)
    last = x.contiguous(memory_format=torch.channels_last)
    for arguments, message in [((x, b, f), "channels-last"), ((last, b[:3], f), "b has the wrong shape")]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.sgan.activated_blur(*arguments, [1, 1, 1, 1], SLOPE, GAIN, CLAMP)


def test_opcheck_of_activated_blur(device):
    x = values(2, 4, 5, 4, dtype=torch.float32, layout=torch.channels_last).to(device).requires_grad_()
    b, f = (values(4, dtype=torch.float32, seed=seed).to(device) for seed in (0, 1))
    arguments = (x, b.clone().requires_grad_(), f, [2, 1, 1, 2], SLOPE, GAIN, CLAMP)
    torch.library.opcheck(torch.ops.sgan.activated_blur.default, arguments)
    dy, pre = x.detach().clone().requires_grad_(), x.detach()
    params = (SLOPE, GAIN, CLAMP, b)
    torch.library.opcheck(torch.ops.sgan.epilogue_backward.default, (dy, pre, None, None, None, True, *params))
    second = (pre, None, None, b, pre, pre, None, None, None, *params)
    torch.library.opcheck(torch.ops.sgan.epilogue_double_backward.default, second)


def test_a_layer_that_adds_what_the_one_before_left_out(device):
    first, second = EqualConv2d(3, 4, 3, act="lrelu", clamp=1.0), EqualConv2d(4, 5, 3, act="lrelu", down=2)
    x = values(2, 3, 8, 8, layout=torch.channels_last).to(device)
    for layer in (first, second):
        layer.double().to(device)
        torch.nn.init.normal_(layer.bias)
    for implementation in ("cuda", "composite", "reference"):
        with use(implementation), Calls("activated_blur") as seen:
            torch.testing.assert_close(second(first.convolve(x), before=first), second(first(x)))
        assert seen.count == (implementation == "cuda")


def test_only_the_filter_adds_what_the_layer_before_left_out(device):
    first = EqualConv2d(3, 4, 3, act="lrelu").to(device)
    x = first.convolve(values(2, 3, 4, 4, dtype=torch.float32).to(device))
    for second in (EqualConv2d(4, 5, 3), EqualConv2d(4, 5, 1, down=2)):
        with pytest.raises(ValueError, match="down = 2 and k = 3"):
            second.to(device)(x, before=first)


# ---------------------------------------------------------------------------------------------------------------------
# The network


@pytest.fixture
def make_d(device):
    def make(**options):
        torch.manual_seed(0)
        options = {"channel_base": 128, "channel_max": 8, "mbstd_group": 2} | options
        return (
            build_discriminator(LevelsDiscriminatorConfig(16, 16, **options)).double().to(device).requires_grad_(True)
        )

    return make


def penalty_gradients(D, x):
    """Gradients of a loss and R1."""
    x = x.detach().requires_grad_()
    logits = D(x)
    (dx,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    parameters = [p for p in D.parameters() if p.requires_grad]
    return torch.autograd.grad(logits.square().sum() + dx.square().sum(), parameters)


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
@pytest.mark.parametrize("frozen", [0, 2])
def test_gradients_of_a_penalty(make_d, randn, architecture, frozen):
    D, x = make_d(architecture=architecture), randn(4, 3, 16, 16)
    for name in D.layers[:frozen]:
        D.get_submodule(name).requires_grad_(False)
    gradients = penalty_gradients(D, x)
    with use("reference"):
        torch.testing.assert_close(gradients, penalty_gradients(D, x))


def test_weights_are_prepared_together(make_d, randn):
    """By one launch for each type; so are their gradients, whose two parts in R1 it adds."""
    D, x = make_d(half_levels=1).float(), randn(4, 3, 16, 16).float().requires_grad_()
    names = ("scaled_sums", "modulation_weights", "add")
    with contextlib.ExitStack() as stack:
        prepared, alone, added = (stack.enter_context(Calls(name)) for name in names)
        logits = D(x, dtype=torch.float16)
        assert prepared.count == 2 and alone.count == 0
        (dx,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        assert prepared.count == 2, "the gradient of images needs none of weights"
        dx.square().sum().backward()
    assert prepared.count == 4 and alone.count == 0
    weights = {p.shape for p in D.parameters() if p.ndim == 4}
    assert added.count and not added.shapes & weights
    assert all(p.grad is not None for name, p in D.named_parameters() if name.endswith("weight"))
