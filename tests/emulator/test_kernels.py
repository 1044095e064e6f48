"""Every kernel in csrc/ against its op's reference, on the CPU, under the address and undefined-behavior sanitizers."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.ops import filtered_lrelu, lowpass_filter, separable_pairs, upfirdn2d, use
from stylegan_cli.ops.bias_act import ACTIVATIONS, negative_slope
from stylegan_cli.ops.modulated_conv2d import pack_weights
from stylegan_cli.ops.tiles import Resampling

EPS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 1.1e-3, torch.bfloat16: 9e-3}
LAYOUTS = {"planes": torch.contiguous_format, "channels_last": torch.channels_last}
INF = math.inf


def randn(*shape, dtype=torch.float64, layout="planes", seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=LAYOUTS[layout]) if x.ndim == 4 else x


def acc(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_close(result, exact, case):
    error = (result.double() - exact).abs().max().item()
    assert error <= EPS[result.dtype] * max(1, exact.abs().max().item()), f"{case}: {error}"  # NaN fails too


# ---------------------------------------------------------------------------------------------------------------------
# bias_act


def misaligned(t):
    """The same tensor one number after a multiple of 16 bytes."""
    memory = t.new_empty(t.numel() + 1 + 16 // t.element_size())
    start = -memory.data_ptr() // t.element_size() % (16 // t.element_size()) + 1
    return memory.as_strided(t.shape, t.stride(), start).copy_(t)


def bias_act_call(act, dtype, layout, shape, with_operands, order, clamp, shift=False):
    """One call and its expected output: (fields, out, exact)."""
    n, c, h, w = shape
    x, dy, ddp = (randn(*shape, dtype=dtype, layout=layout, seed=s) for s in (1, 2, 3))
    x = misaligned(x) if shift else x
    scale, noise, b = randn(n, c, dtype=acc(dtype)), randn(n, 1, h, w, dtype=acc(dtype)), randn(c, dtype=acc(dtype))
    gain = 1.3
    p = x.double()
    if with_operands:
        p = p * scale.double()[:, :, None, None] + noise.double() + b.double()[:, None, None]
    p = p.detach().requires_grad_()
    y = ACTIVATIONS[act].function(p, 0.2) * gain
    y = y if clamp == INF else y.clamp(-clamp, clamp)
    exact = y
    if order:
        exact = torch.autograd.grad(y, p, dy.double(), create_graph=order == 2)[0]
    if order == 2:
        exact = torch.autograd.grad(exact, p, ddp.double())[0]
    out = torch.empty_like(x)
    from_y = order == 1 and negative_slope(act, 0.2, gain) is not None
    reads_operands = with_operands and not from_y
    fields = {
        "x": None if from_y else x,
        "scale": scale if reads_operands else None,
        "noise": noise if reads_operands else None,
        "b": b if reads_operands else None,
        "y": y.detach().to(dtype).contiguous(memory_format=LAYOUTS[layout]) if from_y else None,
        "dy": dy if order else None,
        "ddp": ddp if order == 2 else None,
        "out": out,
        **{"n": n, "c": c, "p": h * w, "noise_stride": h * w, "dtype": dtype, "act": act},
        **{"channels_last": int(layout == "channels_last"), "order": order, "alpha": 0.2, "gain": gain, "clamp": clamp},
    }
    return fields, out, exact.detach()


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_bias_act(emulator, dtype):
    cases = []
    acts = [name for name, activation in ACTIVATIONS.items() if activation.kernel]
    smooth = [a for a in acts if negative_slope(a, 0.2, 1) is None]
    for act, order in [*itertools.product(acts, (0, 1)), *itertools.product(smooth, (2,))]:
        # With whole vectors; with vectors of several rows and samples; without vectors.
        for layout, shape in itertools.product(LAYOUTS, [(2, 8, 4, 4), (2, 5, 3, 7)]):
            for with_operands, clamp in [(True, INF), (False, 0.7)]:
                case = (act, dtype, layout, shape, with_operands, order, clamp)
                cases.append((case, *bias_act_call(*case)))
    emulator.run([("bias_act", fields) for _, fields, _, _ in cases])
    for case, _, out, exact in cases:
        assert_close(out, exact, case)


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_bias_act_of_images(emulator, dtype):
    """Few channels and tiny images: a vector covers several pixels or samples. And memory that is not aligned."""
    shapes = [*((2, c, 5, 7) for c in (1, 2, 3, 4, 6)), (5, 3, 1, 1), (4, 2, 1, 2), (3, 1, 1, 1), (9, 5, 1, 1)]
    cases = [
        (act, dtype, layout, shape, True, order, clamp)
        for (act, order, clamp), layout, shape in itertools.product(
            [("linear", 0, 0.9), ("lrelu", 1, INF), ("swish", 2, 0.9)], LAYOUTS, shapes
        )
    ]
    cases += [("lrelu", dtype, layout, (2, 8, 4, 4), True, 0, INF, True) for layout in LAYOUTS]
    calls = [(case, *bias_act_call(*case)) for case in cases]
    emulator.run([("bias_act", fields) for _, fields, _, _ in calls])
    for case, _, out, exact in calls:
        assert_close(out, exact, case)


def test_bias_act_in_several_launches(harness):
    """Of samples that together have more numbers than an index: here 250."""
    emulator = harness.Emulator([harness.CSRC / "bias_act.cu"], defines=["SGAN_MOST_NUMBERS=250"])
    for act, order in (("lrelu", 0), ("lrelu", 1), ("swish", 2)):
        case = (act, torch.float16, "channels_last", (5, 3, 5, 7), True, order, INF)
        fields, out, exact = bias_act_call(*case)
        emulator.call("bias_act", **fields)
        assert_close(out, exact, case)
    fields, _, _ = bias_act_call("lrelu", torch.float32, "planes", (1, 3, 10, 10), False, 0, INF)
    with pytest.raises(RuntimeError, match="a sample has more than"):
        emulator.call("bias_act", **fields)


def test_bias_act_with_many_blocks_and_shared_noise(emulator):
    x, noise, b = randn(3, 8, 16, 16, dtype=torch.float16), randn(1, 1, 16, 16, dtype=torch.float32), randn(8).float()
    out = torch.empty_like(x)
    rest = {"alpha": 0.2, "gain": 1.0, "clamp": INF, "order": 0, "act": "lrelu", "channels_last": 0, "noise_stride": 0}
    emulator.call("bias_act", x=x, noise=noise, b=b, out=out, n=3, c=8, p=256, dtype=x.dtype, **rest)
    assert_close(out, F.leaky_relu(x.double() + noise + b[:, None, None], 0.2), "many blocks")


def test_piecewise_linear_activations_have_no_second_derivative(emulator):
    fields, _, _ = bias_act_call("lrelu", torch.float32, "planes", (1, 2, 2, 2), False, 0, INF)
    with pytest.raises(RuntimeError, match="no second derivative"):
        emulator.call("bias_act", **(fields | {"order": 2}))


# ---------------------------------------------------------------------------------------------------------------------
# upfirdn2d

FILTERS = {"4": (4,), "3": (3,), "12": (12,), "2d": (3, 4)}


def upfirdn2d_call(dtype, layout, c, taps, up, down, pad, flip, size=(9, 11), place=lambda t: t):
    x, f = randn(2, c, *size, dtype=dtype, layout=layout), randn(*FILTERS[taps], dtype=acc(dtype)) / 3
    with use("reference"):
        exact = upfirdn2d(x.double(), f.double(), up, down, pad, flip, 1.5)
    x, out = place(x), place(torch.empty(exact.shape, dtype=dtype).contiguous(memory_format=LAYOUTS[layout]))
    fields = {"x": x, "f": f, "y": out, "n": 2, "c": c, "h": size[0], "w": size[1], "dtype": dtype, "gain": 1.5}
    fields |= {"out_h": exact.shape[2], "out_w": exact.shape[3], "x_stride": x.stride(), "y_stride": out.stride()}
    fields |= {"pad_x": pad[0], "pad_y": pad[2], "up": up, "down": down, "flip": int(flip)}
    fields |= {"taps_x": f.shape[-1], "taps_y": f.shape[0], "separable": int(f.ndim == 1)}
    fields |= {"activates": 0, "slope": 1.0, "act_gain": 1.0, "clamp": math.inf}
    return fields, out, exact


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_upfirdn2d(emulator, dtype):
    cases = []
    for layout, c, taps in itertools.product(LAYOUTS, (3, 40), FILTERS):
        for up, down in [(1, 1), (2, 1), (1, 2), (3, 2)]:
            for pad, flip in [((6, 5, 4, 7), False), ((7, 3, 8, 8), True)]:
                cases.append((dtype, layout, c, taps, up, down, pad, flip))
        cases.append((dtype, layout, c, taps, 2, 1, (-1, 2, 3, -2), False))  # a negative padding crops
    cases = [case for case in cases if case[3] in ("4", "2d") or case[2] == 3]
    calls = [(case, *upfirdn2d_call(*case)) for case in cases]
    emulator.run([("upfirdn2d", fields) for _, fields, _, _ in calls])
    for case, _, out, exact in calls:
        assert_close(out, exact, case)


def with_gaps(t):
    """The same tensor in rows that are three numbers longer."""
    memory = t.new_empty(*t.shape[:3], t.shape[3] + 3)
    return memory[..., : t.shape[3]].copy_(t)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_upfirdn2d_of_planes_at_any_alignment(emulator, dtype, up, down):
    cases = []
    for taps, pads in (("4", [(1, 2, 2, 1), (2, 2, 3, 1), (0, 3, -1, 5)]), ("12", [(5, 6, 6, 5), (11, 0, 4, 7)])):
        for width, pad, place in itertools.product((6, 8, 16, 17, 31), pads, (lambda t: t, misaligned, with_gaps)):
            cases.append((dtype, "planes", 2, taps, up, down, pad, width % 2 == 0, (7, width), place))
    cases += [(dtype, "planes", 1, "4", up, down, (2, 2, 2, 2), False, size) for size in ((1, 1), (1, 40), (20, 2))]
    calls = [(case, *upfirdn2d_call(*case)) for case in cases]
    emulator.run([("upfirdn2d", fields) for _, fields, _, _ in calls])
    for case, _, out, exact in calls:
        assert_close(out, exact, case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_upfirdn2d_of_pixels_with_any_number_of_channels(emulator, dtype, up, down):
    cases = [
        (dtype, "channels_last", c, taps, up, down, pad, c % 2 == 0, (7, width))
        for c, width, (taps, pad) in itertools.product(
            (2, 3, 4, 5, 12, 17), (1, 6, 11), (("4", (2, 2, 3, 1)), ("4", (1, 3, -1, 5)), ("12", (8, 9, 6, 5)))
        )
    ]
    # Vectors of channels: five, nine, ten and twelve to a pixel, in groups of five, one, two and four.
    vectors = 4 if dtype == torch.float32 else 8
    cases += [
        (dtype, "channels_last", n * vectors, taps, up, down, pad, n % 2 == 0, (6, width))
        for n, width, (taps, pad) in itertools.product(
            (5, 9, 10, 12), (1, 7), (("4", (2, 2, 3, 1)), ("4", (1, 3, -1, 5)), ("12", (8, 9, 6, 5)))
        )
    ]
    calls = [(case, *upfirdn2d_call(*case)) for case in cases]
    emulator.run([("upfirdn2d", fields) for _, fields, _, _ in calls])
    for case, _, out, exact in calls:
        assert_close(out, exact, case)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_upfirdn2d_with_several_strips(emulator, layout, up, down):
    case = (torch.float16, layout, 8, "4", up, down, (2, 1, 2, 1), False, (70, 75))
    fields, out, exact = upfirdn2d_call(*case)
    emulator.call("upfirdn2d", **fields)
    assert_close(out, exact, case)


# ---------------------------------------------------------------------------------------------------------------------
# filtered_lrelu

RESAMPLINGS = {  # up, down, padding, filters
    "same rate": (2, 2, (9, 8, 9, 8), "low-pass"),
    "doubling": (4, 2, (-6, -9, -6, -9), "low-pass"),
    "same rate, radial": (2, 2, (11, 10, 11, 10), "radial"),
    "doubling, radial": (4, 2, (-2, -5, -2, -5), "radial"),
    "other paddings": (4, 2, (-6, -9, -1, 9), "low-pass"),
    "an even padding": (2, 2, (8, 9, 4, 3), "low-pass"),  # general kernel, as all that follow
    "no resampling": (1, 1, (2, 3, 4, -1), "short"),
    "quadrupling": (4, 1, (5, 2, 1, 3), "short"),
    "quartering": (2, 4, (20, 21, 30, 3), "long"),
    "not separable": (2, 2, (9, 8, 9, 8), "2d"),
}
TAPS = {
    "low-pass": lambda up: (lowpass_filter(6 * up, 0.25 / up, 0.1, 1), lowpass_filter(12, 0.2, 0.1, 1)),
    "radial": lambda up: (lowpass_filter(6 * up, 0.25 / up, 0.1, 1), lowpass_filter(12, 0.2, 0.1, 1, radial=True)),
    "short": lambda up: (randn(5) / 2, randn(4) / 2),
    "long": lambda up: (randn(17) / 4, randn(32) / 6),
    "2d": lambda up: (randn(6, 5) / 5, randn(4, 7) / 5),
}


def filtered_lrelu_fields(x, y, codes, fu, fd, pairs, resampling, **rest):
    fields = {"x": x, "y": y, "codes": codes, "fu": fu, "fd": fd, "pairs": pairs, "dtype": x.dtype, "slope": 0.3}
    fields["num_pairs"] = 0 if pairs is None else len(pairs)
    fields |= {"n": x.shape[0], "c": x.shape[1], "h": x.shape[2], "w": x.shape[3], "x_stride": x.stride()}
    fields |= {"out_h": y.shape[2], "out_w": y.shape[3], "y_stride": y.stride(), "gain": resampling.gain}
    fields |= {"up": resampling.up, "down": resampling.down, "flip": int(resampling.flip), "clamp": 0.8}
    fields |= {"pad_x": resampling.padding[0], "pad_y": resampling.padding[2]}
    fields |= {"offset_y": resampling.offset[0], "offset_x": resampling.offset[1]}
    fields |= {"up_taps_y": fu.shape[0], "up_taps_x": fu.shape[-1], "separable_u": int(fu.ndim == 1)}
    fields |= {"down_taps_y": fd.shape[0], "down_taps_x": fd.shape[-1], "separable_d": int(fd.ndim == 1)}
    return fields | rest


def filtered_lrelu_calls(name, dtype, layout, c, size, flip=False):
    """Forward and backward: [(fields, out, exact)]. The second needs what the first one writes."""
    up, down, padding, kind = RESAMPLINGS[name]
    x, b = randn(2, c, *size, dtype=dtype, layout=layout), randn(c).to(acc(dtype))
    fu, fd = (f.to(acc(dtype)) for f in TAPS[kind](up))
    pairs, fd_exact = None, fd
    if kind == "radial" and dtype != torch.float64:
        pairs = torch.cat(separable_pairs(fd.double(), 0), dim=1)[: 4 if dtype == torch.float32 else 3].to(acc(dtype))
        pairs[:, :12] *= 1.25  # shows that the kernel uses them
        fd_exact = pairs[:, :12].double().t() @ pairs[:, 12:].double()
    inputs = x.double().requires_grad_(), b.double()
    with use("reference"):
        exact = filtered_lrelu(
            *inputs, fu.double(), fd_exact.double(), up, down, padding, 1.3, slope=0.3, clamp=0.8, flip=flip
        )
    dy = randn(*exact.shape, dtype=dtype, layout=layout)
    (exact_dx,) = torch.autograd.grad(exact, inputs[0], dy.double())
    y, dx = (torch.empty_like(t, dtype=dtype).contiguous(memory_format=LAYOUTS[layout]) for t in (exact, exact_dx))
    forward = Resampling(up, down, padding, flip, 1.3 * up**2)
    rows, columns = forward.activated_size(x, fu, fd)
    codes = torch.empty(2, c, rows, -(-columns // 16), dtype=torch.int32).contiguous(memory_format=LAYOUTS[layout])
    stored = {"code_h": codes.shape[2], "code_w": codes.shape[3], "code_stride": codes.stride()}
    first = filtered_lrelu_fields(x, y, None, fu, fd, pairs, forward, b=b, new_codes=codes, **stored)
    second = filtered_lrelu_fields(dy, dx, codes, fd, fu, pairs, forward.adjoint(x, fu, fd), **stored)
    return [(first, y, exact.detach()), (second, dx, exact_dx)]


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("name", RESAMPLINGS)
def test_filtered_lrelu(emulator, name, dtype):
    cases = [(name, dtype, layout, c, (15, 19)) for layout in LAYOUTS for c in (3, 9)]
    cases.append((name, dtype, "planes", 2, (14, 16), True))
    calls = [filtered_lrelu_calls(*case) for case in cases]
    for direction in (0, 1):
        emulator.run([("filtered_lrelu", both[direction][0]) for both in calls])
        for case, both in zip(cases, calls):
            assert_close(*both[direction][1:], (case, direction))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["same rate", "doubling", "doubling, radial", "not separable"])
def test_filtered_lrelu_with_several_strips(emulator, name, layout):
    """More than 64 columns and several steps; the order of threads does not matter."""
    for seed in range(2):
        for fields, out, exact in filtered_lrelu_calls(name, torch.float16, layout, 2, (43, 38)):
            emulator.run([("filtered_lrelu", fields)], seed=seed)
            assert_close(out, exact, (name, seed))


def test_filtered_lrelu_without_codes_and_bias(emulator):
    for name in ("same rate", "no resampling"):
        (fields, out, exact), _ = filtered_lrelu_calls(name, torch.float32, "planes", 3, (13, 19))
        fields["b"] = torch.zeros(3)
        emulator.call("filtered_lrelu", **fields)
        with_codes = out.clone()
        emulator.call("filtered_lrelu", **fields | {"b": None, "new_codes": None})
        assert torch.equal(out, with_codes) and not torch.allclose(out.double(), exact)


def test_filtered_lrelu_refuses_long_filters(emulator):
    (fields, _, _), _ = filtered_lrelu_calls("no resampling", torch.float32, "planes", 1, (13, 19))
    with pytest.raises(RuntimeError, match="more than 32 taps"):
        emulator.call("filtered_lrelu", **fields | {"fu": randn(33).float(), "up_taps_x": 33, "up_taps_y": 33})
    with pytest.raises(RuntimeError, match="factors above 4"):
        emulator.call("filtered_lrelu", **fields | {"up": 5})


# ---------------------------------------------------------------------------------------------------------------------
# modulated_conv2d


def modulated_call(dtype, n, i, o, h, w, k, up=1, bare=False, wgmma=0):
    x = randn(n, i, h, w, dtype=dtype, layout="channels_last")
    style = randn(n, i, dtype=torch.float32) + 1
    d, b = randn(n, o, dtype=torch.float32) / 3, randn(o, dtype=torch.float32)
    noise = randn(n, 1, h * up, w * up).float()
    weights = (randn(o, i, k, k) / (k * i**0.5)).to(dtype)
    f = torch.tensor([1.0, 3.0, 5.0, 2.0]) / 11
    scaled = (x.double() * style.double()[:, :, None, None]).to(dtype).double()
    if up == 1:
        exact = F.conv2d(scaled, weights.double(), padding=k // 2)
    else:
        exact = F.conv_transpose2d(scaled, weights.double().transpose(0, 1), stride=2)
        with use("reference"):
            exact = upfirdn2d(exact.to(dtype).double(), f.double(), padding=1, gain=4)
    if not bare:
        exact = exact * d.double()[:, :, None, None] + noise + b[:, None, None]
    exact = (F.leaky_relu(exact, 0.2) * 1.3).clamp(-1.5, 1.5)
    out = torch.empty(exact.shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    operands = {} if bare else {"d": d, "noise": noise, "b": b}
    fields = {"x": x, "w": pack_weights(weights), "style": style, "f": f if up == 2 else None, "y": out, **operands}
    fields |= {"n": n, "in_c": i, "out_c": o, "height": h, "width": w, "noise_stride": h * w * up**2, "dtype": dtype}
    fields |= {"k": k, "up": up, "wgmma": wgmma, "slope": 0.2, "gain": 1.3, "clamp": 1.5}
    fields |= {"image_c": 0, "image_clamp": 0}
    return fields, out, exact


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        {"n": 2, "i": 8, "o": 8, "h": 4, "w": 4, "k": 3},
        {"n": 1, "i": 40, "o": 24, "h": 9, "w": 17, "k": 3},  # two chunks of channels, four tiles of pixels
        {"n": 2, "i": 33, "o": 7, "h": 5, "w": 6, "k": 3},  # no whole vectors
        {"n": 1, "i": 16, "o": 40, "h": 4, "w": 5, "k": 3},  # blocks of 64 channels
        {"n": 1, "i": 16, "o": 140, "h": 4, "w": 5, "k": 3},  # two blocks of 128 channels
        {"n": 1, "i": 16, "o": 24, "h": 5, "w": 4, "k": 3, "bare": True},
        {"n": 1, "i": 40, "o": 16, "h": 9, "w": 17, "k": 3, "up": 2},  # four tiles of 6 x 14 pixels
        {"n": 2, "i": 11, "o": 35, "h": 5, "w": 6, "k": 3, "up": 2},
        {"n": 2, "i": 72, "o": 3, "h": 9, "w": 17, "k": 1},  # toRGB
        {"n": 1, "i": 24, "o": 70, "h": 5, "w": 6, "k": 1},
    ],
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_modulated_conv2d(emulator, dtype, case):
    fields, out, exact = modulated_call(dtype, **case)
    emulator.call("modulated_conv2d", **fields)
    assert_close(out, exact, case)  # products of half-precision numbers are exact: only the final rounding differs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",  # the emulator has three multiprocessors
    [
        {"n": 2, "i": 8, "o": 8, "h": 4, "w": 4},
        {"n": 2, "i": 40, "o": 24, "h": 18, "w": 17},  # three tiles a block; the weights stay in shared memory
        {"n": 2, "i": 104, "o": 32, "h": 17, "w": 16},  # four chunks: they do not stay
        {"n": 3, "i": 64, "o": 64, "h": 16, "w": 18},
        {"n": 1, "i": 16, "o": 200, "h": 4, "w": 5},  # few tiles of 128 channels: narrower ones
        {"n": 2, "i": 48, "o": 136, "h": 17, "w": 5},  # two tiles of 128 channels, the second one almost empty
        {"n": 1, "i": 16, "o": 24, "h": 5, "w": 4, "bare": True},
        {"n": 2, "i": 40, "o": 40, "h": 15, "w": 15, "up": 2},  # 16 tiles of 14 x 14 pixels
        {"n": 1, "i": 8, "o": 8, "h": 4, "w": 5, "up": 2, "bare": True},
    ],
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_modulated_conv2d_with_wgmma(emulator, dtype, case):
    fields, out, exact = modulated_call(dtype, **case, k=3, wgmma=1)
    emulator.call("modulated_conv2d", **fields)
    assert_close(out, exact, case)


@pytest.mark.parametrize("wgmma", [0, 1])
def test_modulated_conv2d_does_not_depend_on_the_order_of_threads(emulator, wgmma):
    outs = []
    for seed in range(4):
        fields, out, _ = modulated_call(torch.float16, 1, 40, 24, 18, 17, 3, wgmma=wgmma)
        emulator.run([("modulated_conv2d", fields)], seed=seed)
        outs.append(out)
    assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("up", [1, 2])
def test_modulated_conv2d_on_an_architecture_without_wgmma(emulator, monkeypatch, up):
    """Compiled for it, the kernel with wgmma cannot be launched with the number of threads that it needs."""
    monkeypatch.setenv("SGAN_EMULATOR_MAX_THREADS", "256")
    fields, out, exact = modulated_call(torch.float16, 1, 8, 8, 4, 4, 3, up, wgmma=1)
    emulator.call("modulated_conv2d", **fields)
    assert_close(out, exact, up)


def test_modulated_conv2d_refuses(emulator):
    fields, _, _ = modulated_call(torch.float16, 1, 8, 8, 4, 4, 3)
    for change, message in [
        ({"dtype": torch.float32}, "float16 and bfloat16"),
        ({"k": 5}, "1x1 or 3x3"),
        ({"k": 1, "up": 2}, "3x3 filters can upsample"),
        ({"height": 2**20, "width": 2**20}, "the image is too large"),
        ({"n": 2**40}, "the batch is too large"),
        ({"image": torch.empty(1, 3, 4, 4), "image_c": 4}, "1 to 3 channels"),
        ({"image": torch.empty(1, 3, 4, 4), "image_c": 3, "out_c": 136}, "at most 128 channels"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            emulator.call("modulated_conv2d", **(fields | change))


def test_empty_batch(emulator):
    x = torch.empty(0, 3, 4, 4)
    fields, _, _ = bias_act_call("lrelu", torch.float32, "planes", (1, 3, 4, 4), False, 0, INF)
    emulator.call("bias_act", **(fields | {"n": 0, "x": x, "out": torch.empty_like(x)}))
