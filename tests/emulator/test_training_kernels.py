"""The kernels that only training needs, on the CPU: under the sanitizers, and as operators with their derivatives."""

import functools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_cli.ops.epilogue import epilogue_reference, piecewise_epilogue
from stylegan_cli.ops.modulated_conv2d import demodulation, prepare_style, prepare_weight
from stylegan_cli.ops.modulation import modulation
from stylegan_cli.sampling import counter

# ---------------------------------------------------------------------------------------------------------------------
# Random numbers by counter

SHAPES = {"z": (5,), "cut": (), "map": (1, 37, 31), "none": (0,), "other map": (1, 64, 80)}
INDEX = torch.tensor([0, 1, 123456789012, -7])


def counter_fields(index, counts, centered):
    keys = [(0x9E3779B97F4A7C15 * (s + 1)) % 2**63 - 2**62 for s in range(len(counts))]
    starts = [len(index) * sum(counts[:s]) for s in range(len(counts))]
    rest = [0] * (32 - len(counts))
    out = torch.empty(len(index) * sum(counts))
    fields = {"index": index, "out": out, "n": len(index), "segments": len(counts), "centered": centered}
    return fields | {"key": keys + rest, "count": counts + rest, "start": starts + rest}


@pytest.mark.parametrize("centered", [0, 1])
def test_counter_under_sanitizers(emulator, centered):
    fields = counter_fields(INDEX, [1, 1025, 0, 2500], centered)
    emulator.call("counter_uniform", **fields)
    assert fields["out"].abs().max() < 1 and (fields["out"].min() < 0) == bool(centered)
    assert len(fields["out"].unique()) > 0.99 * len(fields["out"])


def test_counter_refuses_too_many_segments(emulator):
    with pytest.raises(RuntimeError, match="between 1 and 32"):
        emulator.call("counter_uniform", **counter_fields(INDEX, [1], 0) | {"segments": 33})


@pytest.mark.parametrize("sample", [counter.uniforms, counter.normals])
def test_counter_makes_the_same_bits(device, sample):
    many = {f"{name} {i}": shape for i in range(7) for name, shape in SHAPES.items()}  # more than one launch takes
    found, index = sample(3, many, INDEX.to(device)), INDEX.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "has_kernels", lambda device: False)
        expected = sample(3, many, INDEX.to(device))
    assert len(found) == len(many) and torch.equal(INDEX, index)
    for numbers, exact, shape in zip(found, expected, many.values()):
        assert numbers.shape == exact.shape == (4, *shape) and torch.equal(numbers, exact)


def test_counter_refuses(device):
    for index, keys, counts, message in [
        (INDEX.to(device).int(), [1], [1], "int64"),
        (INDEX.to(device), [1], [1, 2], "a count for each"),
        (INDEX.to(device), [1], [-1], "negative"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.sgan.counter_uniform(index, keys, counts, False)


def test_opcheck_of_counter(device):
    torch.library.opcheck(torch.ops.sgan.counter_uniform.default, (INDEX.to(device), [1, -2], [3, 4], True))


# ---------------------------------------------------------------------------------------------------------------------
# The epilogue: scale, noise, bias, activation, in one pass for each derivative

EPS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 1.1e-3, torch.bfloat16: 9e-3}
SLOPE, GAIN, CLAMP = 0.2, 1.3, 1.1


def values(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def acc(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_close(result, exact, what):
    error, size = (result.double() - exact).abs().max().item(), max(1, exact.abs().max().item())
    eps = EPS[result.dtype if result.dtype in (torch.float16, torch.bfloat16, torch.float64) else torch.float32]
    assert error <= eps * size, f"{what}: {error} of {size}"  # NaN fails too


def exact_derivatives(operands, dy, direction):
    """y, rounded to the type of dy; first derivatives (dx, dscale, dstrength, db); and those of their product with the
    direction with respect to dy, x and scale. y alone says which numbers were clamped."""
    names = ("x", "scale", "strength", "b")
    leaves = {name: operands[name].double().requires_grad_() for name in names}
    dtype, dy = dy.dtype, dy.double().requires_grad_()
    p = leaves["x"] * leaves["scale"][:, :, None, None] + operands["noise"].double() * leaves["strength"]
    p = p + leaves["b"][:, None, None]
    y = (torch.where(p > 0, p, SLOPE * p) * GAIN).clamp(-CLAMP, CLAMP).detach().to(dtype)
    slope = GAIN * torch.where(y > 0, y.double() ** 0, SLOPE) * (y.abs() < torch.tensor(CLAMP, dtype=dtype))
    first = torch.autograd.grad(slope * p, list(leaves.values()), dy, create_graph=True)
    total = sum((a * b.double()).sum() for a, b in zip(first, direction))
    return y, [g.detach() for g in first], torch.autograd.grad(total, (dy, leaves["x"], leaves["scale"]))


def epilogue_calls(dtype, shape, shared_noise=False):
    """Both launches, and [(name, result, exact)]."""
    n, c, h, w = shape
    small = acc(dtype)
    operands = {"x": values(*shape, dtype=dtype, seed=1), "scale": values(n, c, dtype=small)}
    operands |= {"strength": values(1, dtype=small)[0] / 3, "b": values(c, dtype=small) / 3}
    operands["noise"] = values(1 if shared_noise else n, 1, h, w, dtype=small).contiguous()
    dy, gx = values(*shape, dtype=dtype, seed=2), values(*shape, dtype=dtype, seed=3)
    direction = gx, values(n, c, dtype=small, seed=4), values(1, dtype=small, seed=5)[0], values(c, dtype=small, seed=6)
    y, first, second = exact_derivatives(operands, dy, direction)
    y = y.contiguous(memory_format=torch.channels_last)
    shared = {"dy": dy, "y": y, "x": operands["x"], "scale": operands["scale"], "noise": operands["noise"]}
    shared |= {"n": n, "c": c, "p": h * w, "noise_stride": 0 if shared_noise else h * w, "dtype": dtype}
    shared |= {
        "slope": SLOPE,
        "gain": GAIN,
        "clamp": CLAMP,
        "partial": torch.empty(4 * n * (2 * c + 4) * 8, dtype=small),
    }
    like = [torch.empty_like(t, dtype=small) for t in (operands["scale"], operands["strength"], operands["b"])]
    dx, ddy, cx = (torch.empty_like(dy) for _ in range(3))
    cscale = torch.empty_like(like[0])
    one = shared | {"dx": dx, **dict(zip(("dscale", "dstrength", "db"), like)), "order": 1}
    two = shared | dict(zip(("gx", "gscale", "gstrength", "gb"), direction))
    two |= {"dx": ddy, "cx": cx, "dscale": cscale, "order": 2}
    results = zip(("dx", "dscale", "dstrength", "db", "ddy", "cx", "cscale"), (dx, *like, ddy, cx, cscale))
    return [("epilogue_grad", one), ("epilogue_grad", two)], [
        (name, result, exact) for (name, result), exact in zip(results, [*first, *second])
    ]


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_epilogue_derivatives_under_sanitizers(emulator, dtype):
    """With whole vectors and without; with more channels than threads; with several chunks of rows."""
    cases = [(2, 16, 3, 5), (3, 5, 3, 7), (1, 264 if dtype == torch.float32 else 300, 2, 3), (2, 8, 40, 41)]
    for shape in cases:
        calls, results = epilogue_calls(dtype, shape, shared_noise=shape[0] == 3)
        emulator.run(calls)
        for name, result, exact in results:
            assert_close(result, exact, (shape, name))


def test_sums_have_the_same_bits_in_any_order_of_threads(emulator):
    bits = []
    for seed in range(2):
        calls, results = epilogue_calls(torch.float16, (2, 8, 40, 41))
        emulator.run(calls, seed=seed)
        bits.append([result for _, result, _ in results])
    assert all(torch.equal(*pair) for pair in zip(*bits))


LAYOUTS = {"channels last": torch.channels_last, "planes": torch.contiguous_format}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_epilogue_is_differentiable_twice(randn, layout, clamp):
    x = randn(2, 3, 2, 2).contiguous(memory_format=LAYOUTS[layout])
    leaves = [t.requires_grad_() for t in (x, randn(2, 3), randn(2, 1, 2, 2), randn(1)[0], randn(3))]
    for noise_has_gradient in (False, True):
        leaves[2].requires_grad_(noise_has_gradient)
        function = functools.partial(piecewise_epilogue, slope=SLOPE, gain=GAIN, clamp=clamp)
        assert gradcheck(function, leaves) and gradgradcheck(function, leaves)


def test_scaling_is_differentiable_twice(randn):
    leaves = [t.requires_grad_() for t in (values(2, 3, 2, 2).to(randn(1).device), randn(2, 3))]
    assert gradcheck(piecewise_epilogue, leaves) and gradgradcheck(piecewise_epilogue, leaves)


def test_rows_and_an_empty_batch(randn):
    for shape in ((4, 3), (0, 3), (0, 3, 2, 2)):
        x, b = randn(*shape).requires_grad_(), randn(3).requires_grad_()
        y = piecewise_epilogue(x, b=b, slope=SLOPE)
        dx, db = torch.autograd.grad(y.sum(), (x, b))
        exact = torch.autograd.grad(epilogue_reference(x, None, None, None, b, SLOPE, 1.0, math.inf).sum(), (x, b))
        torch.testing.assert_close((dx, db), exact)


class Arguments(TorchDispatchMode):
    """The arguments of each call of an operator."""

    def __init__(self, name):
        super().__init__()
        self.name, self.calls = name, []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.overloadpacket.__name__ == self.name:
            self.calls.append(args)
        return op(*args, **(kwargs or {}))


def test_a_gradient_of_images_computes_no_others(randn):
    """As in R1: neither when it is taken, nor the sums of what only its derivative needs."""
    x = values(2, 3, 4, 4).to(randn(1).device).requires_grad_()
    scale, strength, b = (t.requires_grad_() for t in (randn(2, 3), randn(1)[0], randn(3)))
    y = piecewise_epilogue(x * 2, scale, randn(2, 1, 4, 4), strength, b * 1, SLOPE)
    with Arguments("epilogue_backward") as seen:
        (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        dx.square().sum().backward()
    images, *rest = seen.calls
    assert images[2] is None and images[4] is None and images[5] is False, "x, noise, bias"
    assert b.grad is None and scale.grad is not None and strength.grad is None and not rest
    with Arguments("epilogue_backward") as seen:
        piecewise_epilogue(x * 2, scale, randn(2, 1, 4, 4), strength, b * 1, SLOPE).sum().backward()
    assert seen.calls[0][2] is not None and seen.calls[0][4] is not None and seen.calls[0][5] is True
    assert b.grad is not None and strength.grad is not None


def test_opcheck_of_the_epilogue(randn):
    x = values(2, 3, 4, 5, dtype=torch.float32).to(randn(1).device)
    small = [randn(2, 3), randn(1, 1, 4, 5), randn(1)[0], randn(3)]
    scale, noise, strength, b = (t.float() for t in small)
    leaves = [t.clone().requires_grad_() for t in (x, scale, strength, b)]
    sgan, params = torch.ops.sgan, (SLOPE, GAIN, CLAMP)
    torch.library.opcheck(sgan.epilogue.default, (leaves[0], leaves[1], noise, *leaves[2:], *params))
    torch.library.opcheck(sgan.epilogue_backward.default, (leaves[0], x, x, leaves[1], noise, True, *params))
    torch.library.opcheck(
        sgan.epilogue_backward.default, (leaves[0], None, None, None, None, False, 1.0, 1.0, math.inf)
    )
    cotangents = x, scale, strength, b
    torch.library.opcheck(sgan.epilogue_double_backward.default, (*cotangents, x, x, x, scale, noise, *params))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dy": lambda t: t.contiguous()}, "dy must be channels-last"),
        ({"y": lambda t: t.contiguous()}, "memory format of dy"),
        ({"y": lambda t: None}, "y is needed"),
        ({"scale": lambda t: t[:1]}, "scale has the wrong shape"),
    ],
)
def test_epilogue_refuses(randn, change, message):
    x = values(2, 3, 4, 5, dtype=torch.float32).to(randn(1).device)
    arguments = {"dy": x, "y": x, "x": None, "scale": randn(2, 3).float(), "noise": None}
    arguments |= {name: function(arguments[name]) for name, function in change.items()}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sgan.epilogue_backward(*arguments.values(), True, SLOPE, GAIN, CLAMP)


# ---------------------------------------------------------------------------------------------------------------------
# Modulation: weights and styles


def modulation_calls(dtype, n, i, o, k, layout):
    """Every launcher, and [(name, result, exact)]; the shapes are not multiples of those of blocks."""
    small, normalize = acc(dtype), int(dtype in (torch.float16, torch.bfloat16))
    w, style = values(o, i, k, k, dtype=small).contiguous(memory_format=layout), values(n, i, dtype=small)
    gain = 0.7
    exact_w, squares = prepare_weight(w.double() * gain, dtype)
    exact_s = prepare_style(style.double(), dtype).double()
    f_w, f_s = (exact_w / w).mean([1, 2, 3]).double(), (exact_s / style).mean(1).double()
    if normalize:  # in the precision of the results
        f_w = 1 / (w[0].numel() ** 0.5 * w.double().abs().amax([1, 2, 3]))
        squares = (w.double() * f_w[:, None, None, None]).square().sum([2, 3])
    last = torch.channels_last == layout
    new_w, q = torch.empty_like(w, dtype=dtype), torch.empty(o, i, dtype=small)
    new_s, d = torch.empty(n, i, dtype=small), torch.empty(n, o, dtype=small)
    factors = torch.empty(o, dtype=small), torch.empty(n, dtype=small)
    sizes = {"o": o, "i": i}
    shape = {**sizes, "taps": k * k, "dtype": dtype, "channels_last": int(last)}
    weights = {"w": w, "out": new_w, "q": q, "factor": factors[0], **shape, "normalize": normalize, "gain": gain}
    styles = {"style": style, "q": squares.to(small), "out": new_s, "d": d, "factor": factors[1], "n": n, **sizes}
    styles |= {"dtype": small, "normalize": normalize}
    exact_d = demodulation(exact_s, squares.double())
    results = [("w", new_w, w.double() * f_w[:, None, None, None]), ("q", q, squares), ("f", factors[0], f_w)]
    results += [("s", new_s, style.double() * f_s[:, None]), ("d", d, exact_d), ("f", factors[1], f_s)]
    return [("modulation_weights", weights), ("modulation_styles", styles)], results


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_modulation_under_sanitizers(emulator, dtype, layout):
    for n, i, o, k in ((2, 5, 3, 3), (3, 40, 19, 1), (1, 300, 9, 3)):
        calls, results = modulation_calls(dtype, n, i, o, k, LAYOUTS[layout])
        emulator.run(calls)
        for name, result, exact in results:
            assert_close(result, exact, (n, i, o, k, name))


@pytest.mark.parametrize("small", [torch.float32, torch.float64], ids=str)
def test_gradients_of_modulation_under_sanitizers(emulator, small):
    n, i, o, k = 3, 37, 11, 3
    w, gq, factor = values(o, i, k, k, dtype=small), values(o, i, dtype=small), values(o, dtype=small)
    gw, dw = values(o, i, k, k, dtype=torch.bfloat16, seed=1), torch.empty_like(w)
    gw = gw if small == torch.float32 else gw.double()
    last = {"taps": 9, "channels_last": 1, "dtype": gw.dtype}
    emulator.call("modulation_weights_grad", gw=gw, gq=gq, w=w, factor=factor, dw=dw, o=o, i=i, **last)
    f = factor.double()[:, None, None, None]
    assert_close(dw, f * (gw.double() + 2 * f * w.double() * gq.double()[:, :, None, None]), "dw")

    style, u, gs = (values(n, i, dtype=small, seed=s) for s in (2, 3, 4))
    gd, d, f = values(n, o, dtype=small, seed=5), values(n, o, dtype=small, seed=6), values(n, dtype=small)
    q = values(o, i, dtype=small, seed=7)
    ds, new_q, cgs, cs, cgd, cd, cq = (torch.empty_like(t) for t in (style, q, style, style, d, d, q))
    shared = {"gd": gd, "style": style, "d": d, "q": q, "factor": f, "n": n, "i": i, "o": o, "dtype": small}
    emulator.call("modulation_styles_grad", gs=gs, ds=ds, gq=new_q, **shared)
    emulator.call("modulation_styles_second", u=u, cgs=cgs, cs=cs, cgd=cgd, cd=cd, cq=cq, **shared)
    leaves = [t.double().requires_grad_() for t in (gs, gd, style, d, q)]
    xgs, xgd, xs, xd, xq = leaves
    e = -xgd * xd**3 / 2
    exact = f.double()[:, None] * (xgs + 2 * xs * (e @ xq))
    assert_close(ds, exact.detach(), "ds")
    assert_close(new_q, (e.t() @ xs.square()).detach(), "gq")
    second = torch.autograd.grad(exact, leaves, u.double())
    for name, result, derivative in zip(("gs", "gd", "s", "d", "q"), (cgs, cgd, cs, cd, cq), second):
        assert_close(result, derivative, name)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_modulation_is_differentiable_twice(randn, layout, demodulate):
    w = (randn(2, 3, 3, 3) / 3).contiguous(memory_format=LAYOUTS[layout])
    leaves = [t.requires_grad_() for t in (w, 1 + randn(2, 3) / 3)]

    def function(w, style):
        results = modulation(w, style, 0.7, torch.float64, demodulate)
        return tuple(t for t in results if t is not None)

    assert gradcheck(function, leaves) and gradgradcheck(function, leaves)


def test_opcheck_of_modulation(randn):
    w, style = (t.float().requires_grad_() for t in (randn(3, 4, 3, 3), randn(2, 4)))
    q, gd, d, f = (randn(*shape).float() for shape in ((3, 4), (2, 3), (2, 3), (2,)))
    sgan = torch.ops.sgan
    torch.library.opcheck(sgan.modulation_weights.default, (w, 0.7, True, 1))
    torch.library.opcheck(
        sgan.modulation_weights_backward.default, (w.detach().half(), q, w.detach(), randn(3).float())
    )
    torch.library.opcheck(sgan.modulation_styles.default, (style, q.abs().requires_grad_(), True))
    saved = (gd, style.detach(), d, q, f)
    torch.library.opcheck(sgan.modulation_styles_backward.default, (style.detach(), *saved, True))
    torch.library.opcheck(sgan.modulation_styles_double_backward.default, (style.detach(), *saved))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda randn: torch.ops.sgan.modulation_weights(randn(2, 3, 1, 1).half(), 1.0, False, 0), "must be float32"),
        (lambda randn: torch.ops.sgan.modulation_weights(randn(2, 3), 1.0, False, 0), "w must be"),
        (lambda randn: torch.ops.sgan.modulation_styles(randn(2, 3), randn(4, 2), False), "q has the wrong shape"),
    ],
)
def test_modulation_refuses(randn, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(randn)
