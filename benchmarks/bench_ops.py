"""The individual ops: bias_act, upfirdn2d, add_skip, on a GPU those of training, and every modulated convolution of two
synthesis networks.

python benchmarks/bench_ops.py
python benchmarks/bench_ops.py --op modulated_conv2d --batch 1 --peer ../stylegan3

Times are those of the device alone. Alternatives: 'reference', our implementation in plain PyTorch; 'compiled', the
same under torch.compile; 'composite', PyTorch operations arranged to be fast; 'separate', our other ops one by one;
'grouped', a convolution with per-sample weights. For modulated convolution, 'fused' is the whole layer in one kernel,
'kernels' is cuDNN between our other kernels, and 'ours' is whichever of the two the op chooses. For the gradients of
its epilogue, 'separate' is one operation for each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from unittest import mock

import _peer
import _plain
import click
import torch
from _harness import Bench, Run, backward_of, benchmark, compiled, count_input_sets, cycle_through, wider_dtype
from _options import Numbers
from torch import Tensor

from stylegan_cli.ops import (
    add_skip,
    bias_act,
    epilogue,
    fir_filter,
    modulated_conv2d,
    upfirdn2d,
    upsample2d,
    use,
)
from stylegan_cli.sampling import counter

OPS = ("bias_act", "upfirdn2d", "add_skip", "epilogue", "noise", "modulated_conv2d")
TAPS = (1, 3, 3, 1)
TWELVE = (1, 4, 9, 17, 25, 30, 30, 25, 17, 9, 4, 1)  # same length as in StyleGAN3
CLAMP = 256.0


@click.command()
@click.option("--op", type=click.Choice(OPS), multiple=True, default=OPS, show_default=True)
@click.option(
    "--size", type=Numbers(), default="128,256,1024,32", show_default=True, help="Sizes for the memory-bound ops."
)
@click.option("--batch", default=8, show_default=True)
@click.option("--channel-max", default=512, show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Default: float16, or float32 on a CPU."
)
@click.option("--compile", "compiles", is_flag=True, help="Also measure torch.compile, which takes minutes.")
@benchmark
@torch.no_grad()
def main(bench: Bench, op, size, batch: int, channel_max: int, dtype: str | None, compiles: bool) -> None:
    dtype = getattr(torch, dtype or ("float16" if bench.cuda else "float32"))
    for side in size:
        shape = (batch, min(32768 // side, channel_max), side, side)
        for channels_last in (True, False):  # first the layout of our networks
            # Compiled code does not depend on the layout: one is enough.
            options = {"channels_last": channels_last, "compiles": compiles and channels_last}
            if "bias_act" in op:
                time_bias_act(bench, shape, dtype, **options)
                if side == max(size):
                    time_bias_act(bench, (batch, 3, side, side), dtype, **options)
            if "add_skip" in op:
                time_add_skip(bench, (batch, 3, side, side), dtype, **options)
            if "upfirdn2d" in op:
                for kind in FILTERS:
                    time_upfirdn2d(bench, shape, dtype, kind, TAPS, **options)
                if side == 256 or len(size) == 1:
                    for kind in FILTERS:
                        time_upfirdn2d(bench, shape, torch.float32, kind, TWELVE, **options)
                if side == max(size):
                    for kind in FILTERS:
                        time_upfirdn2d(bench, (batch, 3, side, side), torch.float32, kind, TAPS, **options)
        if "epilogue" in op and bench.cuda:
            time_epilogue(bench, shape, dtype)
        if "noise" in op and bench.cuda:
            time_noise(bench, batch, side)
    if "modulated_conv2d" in op:
        for layer in layers(max(size), channel_max):
            time_modulated_conv2d(bench, batch, *layer, dtype, compiles)


def randn(
    bench: Bench,
    dtype: torch.dtype,
    *shape: int,
    channels_last: bool = False,
) -> Tensor:
    x = torch.randn(shape, device=bench.device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def num_bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def title(name: str, shape: tuple[int, ...], channels_last: bool) -> str:
    return f"{name} {'x'.join(map(str, shape))}{' channels_last' if channels_last else ''}"


def alternatives(
    bench: Bench,
    function: Callable,  # (*tensors)
    peer_function: Callable | None,
    compiles: bool,
) -> dict[str, Callable]:
    """The implementations of an op that is one kernel of ours."""
    functions = {"ours": function, "reference": use("reference")(function)}
    if bench.cuda:
        functions["composite"] = use("composite")(function)
    if compiles:
        functions["compiled"] = use("reference")(compiled(function))
    if bench.peer:
        functions["peer"] = peer_function
    return functions


# ----------------------------------------------------------------------------------------- memory-bound


def time_bias_act(
    bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, compiles: bool
) -> None:
    """Forward: x read, y written. Backward in x: dy and y read, dx written."""
    x = randn(bench, dtype, *shape, channels_last=channels_last)
    b = randn(bench, dtype, shape[1])
    tensors = [
        randn(bench, dtype, *shape, channels_last=channels_last)
        for _ in range(2 * count_input_sets(2 * num_bytes(x), bench.device))
    ]
    forward = [(x, b) for x in tensors[::2]]
    backward = [(x, b, dy) for x, dy in zip(tensors[::2], tensors[1::2])]
    exact = [t.to(wider_dtype(dtype)) for t in backward[0]]

    def act(x, b):
        return bias_act(x, b, act="lrelu", clamp=CLAMP)

    def peer_act(x, b):
        return bench.peer.bias_act.bias_act(x, b, act="lrelu", clamp=CLAMP)

    reference = use("reference")(act)
    facts = {"op": "bias_act", "size": shape[-1], "dtype": dtype, "sets": len(forward)}
    for name, num_passes, run, sets, inputs in (
        ("bias_act", 2, cycle_through, forward, exact[:2]),
        ("bias_act backward", 3, backward_of, backward, exact),
    ):
        bench.row(
            title(name, shape, channels_last),
            {key: run(f, sets) for key, f in alternatives(bench, act, peer_act, compiles).items()},
            exact=lambda run=run, inputs=inputs: run(reference, [tuple(inputs)])(0),
            plain=lambda run=run, sets=sets: run(reference, sets)(0),
            moved=num_passes * num_bytes(x),
            **facts,
        )


FILTERS = {"up2": (2, 1), "down2": (1, 2), "filter": (1, 1)}


def time_upfirdn2d(
    bench: Bench,
    shape: tuple[int, ...],  # on the larger side
    dtype: torch.dtype,
    kind: str,  # key of FILTERS
    taps: tuple[int, ...],
    channels_last: bool,
    compiles: bool,
) -> None:
    up, down = FILTERS[kind]
    k, (n, c, h, w) = len(taps), shape
    shape = (n, c, h // up, w // up)
    pad = k - up if up > 1 else k - down
    padding = ((pad + up) // 2, pad - (pad + up) // 2 + up - 1) * 2 if up > 1 else ((pad + 1) // 2, pad // 2) * 2
    f = fir_filter(taps).to(bench.device)
    x = randn(bench, dtype, *shape, channels_last=channels_last)
    moved = num_bytes(x) * (1 + up**2 / down**2)
    sets = [(x,)] + [
        (randn(bench, dtype, *shape, channels_last=channels_last),)
        for _ in range(count_input_sets(int(moved), bench.device) - 1)
    ]
    options = {"up": up, "down": down, "padding": padding, "gain": float(up**2)}

    def resample(x):
        return upfirdn2d(x, f, **options)

    reference = use("reference")(resample)
    peer_resample = None
    if bench.peer:
        peer_f = bench.peer.upfirdn2d.setup_filter(list(taps), device=bench.device)

        def peer_resample(x):
            return bench.peer.upfirdn2d.upfirdn2d(x, peer_f, **options | {"padding": list(padding)})

    bench.row(
        title(f"upfirdn2d {kind}, {k} taps", shape, channels_last),
        {key: cycle_through(g, sets) for key, g in alternatives(bench, resample, peer_resample, compiles).items()},
        exact=lambda: reference(x.to(wider_dtype(dtype))),
        plain=lambda: reference(x),
        dtype=dtype,
        sets=len(sets),
        moved=moved,
        op="upfirdn2d",
        size=h,
    )


def time_epilogue(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """All gradients of what follows a modulated convolution: dy, y and x read, dx written."""
    n, c, h, w = shape
    small = [randn(bench, torch.float32, *size) for size in ((n, c), (n, 1, h, w), (), (c,))]

    def make_inputs():
        return randn(bench, dtype, *shape, channels_last=True), randn(bench, dtype, *shape, channels_last=True)

    moved = 4 * num_bytes(make_inputs()[0]) + num_bytes(small[1])
    sets = [make_inputs() for _ in range(count_input_sets(moved, bench.device))]

    def gradients(function, x, dy) -> list[Tensor]:
        leaves = [t.to(t.dtype if x.dtype == dtype else x.dtype).requires_grad_() for t in (x.detach(), *small)]
        leaves[2].requires_grad_(False)  # of the noise
        with torch.enable_grad():
            y = function(*leaves, 0.2, 2**0.5, CLAMP)
        return list(torch.autograd.grad(y, [leaf for leaf in leaves if leaf.requires_grad], dy.to(y.dtype)))

    def separate(x, dy):
        with mock.patch.object(epilogue, "_is_one_pass", lambda *tensors: False):
            return gradients(epilogue.piecewise_epilogue, x, dy)

    ours = functools.partial(gradients, epilogue.piecewise_epilogue)
    reference = functools.partial(gradients, epilogue.epilogue_reference)
    bench.row(
        title("epilogue, forward and backward", shape, True),
        {name: cycle_through(f, sets) for name, f in {"ours": ours, "separate": separate}.items()},
        exact=lambda: reference(*(t.to(wider_dtype(dtype)) for t in sets[0])),
        plain=lambda: separate(*sets[0]),
        dtype=dtype,
        sets=len(sets),
        moved=moved + 2 * num_bytes(sets[0][0]),
        op="epilogue",
        size=h,
    )


def time_add_skip(
    bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, compiles: bool
) -> None:
    """What follows toRGB's convolution: x and the image below read, the image written in float32."""
    n, c, h, w = shape
    f, b = fir_filter(TAPS).to(bench.device), randn(bench, torch.float32, c)
    image = torch.empty(shape, device="meta")

    def make_inputs():
        x = randn(bench, dtype, *shape, channels_last=channels_last)
        return x, b, randn(bench, image.dtype, n, c, h // 2, w // 2, channels_last=channels_last)

    first = make_inputs()
    moved = num_bytes(first[0], first[2], image)
    sets = [first, *(make_inputs() for _ in range(count_input_sets(moved, bench.device) - 1))]

    def skip(x, b, below):
        return add_skip(x, b, below, f.to(below.dtype), CLAMP)

    def separate(x, b, below):
        return bias_act(x, b.to(x.dtype), clamp=CLAMP).to(below.dtype) + upsample2d(below, f)

    peer_skip = None
    if bench.peer:
        peer_f = bench.peer.upfirdn2d.setup_filter(list(TAPS), device=bench.device)

        def peer_skip(x, b, below):
            y = bench.peer.bias_act.bias_act(x, b.to(x.dtype), clamp=CLAMP).to(below.dtype)
            return bench.peer.upfirdn2d.upsample2d(below, peer_f).add_(y)

    functions = alternatives(bench, skip, peer_skip, compiles) | {"separate": separate}
    bench.row(
        title("add_skip", shape, channels_last),
        {key: cycle_through(g, sets) for key, g in functions.items()},
        exact=lambda: use("reference")(skip)(*(t.to(wider_dtype(dtype)) for t in first)),
        plain=lambda: use("reference")(skip)(*first),
        dtype=dtype,
        sets=len(sets),
        moved=moved,
        op="add_skip",
        size=h,
    )


def time_noise(bench: Bench, batch: int, side: int) -> None:
    """The noise maps of one pass of a generator: as many numbers as two maps of each size up to this one."""
    index = torch.arange(batch, device=bench.device)
    shapes = {f"{i}.{size}": (1, size, size) for size in (4 * 2**k for k in range(9)) if size <= side for i in "ab"}
    functions = {"ours": counter.normals, "composite": use("composite")(counter.normals)}
    bench.row(
        f"noise up to {side}x{side}, batch {batch}",
        {name: cycle_through(f, [(0, shapes, index)]) for name, f in functions.items()},
        exact=lambda: [x.double() for x in functions["composite"](0, shapes, index)],
        plain=lambda: functions["composite"](0, shapes, index),
        dtype=torch.float32,
        sets=1,
        moved=20 * batch * sum(size[1] * size[2] for size in shapes.values()),
        op="noise",
        size=side,
    )


# ----------------------------------------------------------------------------------- modulated convolution


def layers(
    largest: int,  # size of the larger network's images
    channel_max: int,
) -> Iterator[tuple[str, int, int, int]]:
    """The distinct layers of the 256x256 network with channel base 16384 and the 1024x1024 network with 32768, largest
    first: kind, input channels, output channels, output size."""
    distinct = {}
    for top, base in ((min(1024, largest), 32768), (min(256, largest), 16384)):
        for size in (s for s in (1024, 512, 256, 128, 64, 32, 16, 8, 4) if s <= top):
            o = min(base // size, channel_max)
            i = min(base // size * 2, channel_max)
            distinct |= {("up", i, o, size): None} if size > 4 else {}
            distinct |= {("conv", o, o, size): None, ("torgb", o, 3, size): None}
    yield from sorted(distinct, key=lambda layer: -layer[-1])


def time_modulated_conv2d(
    bench: Bench, batch: int, kind: str, i: int, o: int, size: int, dtype: torch.dtype, compiles: bool
) -> None:
    up, k = (2 if kind == "up" else 1), (1 if kind == "torgb" else 3)
    x_size = size // up
    f = fir_filter(TAPS).to(bench.device)
    noise = None if kind == "torgb" else randn(bench, torch.float32, 1, 1, size, size)
    strength = torch.full([], 0.1, device=bench.device)
    options = {"demodulate": kind != "torgb", "up": up, "act": "linear" if kind == "torgb" else "lrelu"}

    def make_inputs():
        x = randn(bench, dtype, batch, i, x_size, x_size, channels_last=True)
        w = randn(bench, torch.float32, o, i, k, k, channels_last=True) / (i * k * k) ** 0.5
        return x, w, 1 + 0.3 * randn(bench, torch.float32, batch, i), randn(bench, torch.float32, o)

    def layer(x, w, style, b):
        noise_options = {} if noise is None else {"noise": noise.to(w.dtype), "noise_strength": strength.to(w.dtype)}
        return modulated_conv2d(x, w, style, b=b, f=f, clamp=CLAMP, **noise_options, **options)

    first = make_inputs()
    y = torch.empty(batch, o, size, size, dtype=dtype, device="meta")
    moved = num_bytes(first[0], y) + first[1].numel() * y.element_size() + (0 if noise is None else num_bytes(noise))
    sets = [first, *(make_inputs() for _ in range(count_input_sets(moved, bench.device) - 1))]
    functions = _layer_functions(bench, layer, noise, strength, f, options, compiles)
    candidates = {name: cycle_through(function, sets) for name, function in functions.items()}
    if bench.peer:
        candidates |= _peer_candidates(bench, sets, noise, strength, options)
    bench.row(
        title(f"modulated_conv2d {kind}", (batch, i, o, size, size), False),
        candidates,
        exact=lambda: functions["reference"](*(t.to(wider_dtype(dtype)) for t in first)),
        plain=lambda: functions["reference"](*first),
        dtype=dtype,
        sets=len(sets),
        moved=moved,
        flop=2 * batch * i * o * k * k * x_size * x_size,
        op="modulated_conv2d",
        kind=kind,
        size=size,
    )


def _layer_functions(
    bench: Bench, layer: Callable, noise, strength, f: Tensor, options: dict, compiles: bool
) -> dict[str, Callable]:
    functions = {"ours": layer}
    if bench.cuda:
        # Layers that cannot be fused use the other kernels, without an error.
        functions["fused"] = use("fused")(layer)
        functions["kernels"] = use("cuda")(layer)
        functions["composite"] = use("composite")(layer)
    functions["reference"] = use("reference")(layer)
    functions["grouped"] = lambda x, w, s, b: _plain.modulated_grouped(
        x, w, s, f=f, noise=noise, noise_strength=strength, b=b, clamp=CLAMP, **options
    )
    if compiles:
        functions["compiled"] = use("reference")(compiled(layer))
    return functions


def _peer_candidates(bench: Bench, sets: list[tuple], noise, strength, options: dict) -> dict[str, Run]:
    """The peer's layer with and without per-sample weights, in its default layout."""
    f = bench.peer.upfirdn2d.setup_filter(list(TAPS), device=bench.device)
    noise = None if noise is None else noise * strength
    sets = [(x.contiguous(), w.contiguous(), style, b) for x, w, style, b in sets]

    def layer(grouped, x, w, style, b):
        return _peer.modulated_layer(bench.peer, x, w, style, noise, b, f, clamp=CLAMP, grouped=grouped, **options)

    return {
        "peer": cycle_through(functools.partial(layer, False), sets),
        "peer grouped": cycle_through(functools.partial(layer, True), sets),
    }


if __name__ == "__main__":
    main()
