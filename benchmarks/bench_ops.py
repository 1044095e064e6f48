"""The ops one by one: bias_act, upfirdn2d, and every modulated convolution of two synthesis networks.

python benchmarks/bench_ops.py
python benchmarks/bench_ops.py --op modulated_conv2d --batch 1 --peer ../stylegan3

Times are the device's alone. Beside ours stand: 'reference', our own in plain PyTorch; 'compiled', that one under
torch.compile; 'composite', PyTorch's operations arranged to be fast; 'grouped', a convolution with weights of each
sample's own. Of modulated convolution 'fused' is the whole layer in one kernel, 'kernels' is cuDNN between our other
kernels, and 'ours' is whichever of the two the op chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import _peer
import _plain
import click
import torch
from _harness import Bench, Numbers, backward_of, benchmark, compiled, over, sets_for, wider
from torch import Tensor

from stylegan_cli.ops import bias_act, fir_filter, modulated_conv2d, upfirdn2d, use

OPS = ("bias_act", "upfirdn2d", "modulated_conv2d")
TAPS = (1, 3, 3, 1)
TWELVE = (1, 4, 9, 17, 25, 30, 30, 25, 17, 9, 4, 1)  # as long as StyleGAN3's
CLAMP = 256.0


@click.command()
@click.option("--op", type=click.Choice(OPS), multiple=True, default=OPS, show_default=True)
@click.option("--size", type=Numbers(), default="128,256,1024,32", show_default=True, help="Of the memory-bound ops.")
@click.option("--batch", default=8, show_default=True)
@click.option("--channel-max", default=512, show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="[default: float16; float32 on a CPU]"
)
@click.option("--compile/--no-compile", "compiles", default=None, help="[default: on a GPU]")
@benchmark
@torch.no_grad()
def main(bench: Bench, op, size, batch: int, channel_max: int, dtype: str | None, compiles: bool | None) -> None:
    dtype = getattr(torch, dtype or ("float16" if bench.cuda else "float32"))
    compiles = bench.cuda if compiles is None else compiles
    for side in size:
        shape = (batch, min(32768 // side, channel_max), side, side)
        for channels_last in (False, True):
            # Compiled code is not made for a layout: one is enough.
            how = {"channels_last": channels_last, "compiles": compiles and not channels_last}
            if "bias_act" in op:
                time_bias_act(bench, shape, dtype, **how)
            if "upfirdn2d" in op:
                for kind in FILTERS:
                    time_upfirdn2d(bench, shape, dtype, kind, TAPS, **how)
                if side == 256 or len(size) == 1:
                    for kind in FILTERS:
                        time_upfirdn2d(bench, shape, torch.float32, kind, TWELVE, **how)
    if "modulated_conv2d" in op:
        for layer in layers(max(size), channel_max):
            time_modulated_conv2d(bench, batch, *layer, dtype, compiles)


def draw(
    bench: Bench,
    dtype: torch.dtype,
    *shape: int,
    channels_last: bool = False,
) -> Tensor:
    x = torch.randn(shape, device=bench.device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def size_of(*tensors: Tensor) -> int:  # bytes
    return sum(t.numel() * t.element_size() for t in tensors)


def title(name: str, shape: tuple[int, ...], channels_last: bool) -> str:
    return f"{name} {'x'.join(map(str, shape))}{' channels_last' if channels_last else ''}"


def alternatives(
    bench: Bench,
    function: Callable,  # (*tensors)
    theirs: Callable | None,  # the peer's
    compiles: bool,
) -> dict[str, Callable]:
    """The ways to run an op that is made by one kernel of ours."""
    ways = {"ours": function, "reference": use("reference")(function)}
    if bench.cuda:
        ways["composite"] = use("composite")(function)
    if compiles:
        ways["compiled"] = use("reference")(compiled(function))
    if bench.peer:
        ways["peer"] = theirs
    return ways


# ----------------------------------------------------------------------------------------- memory-bound


def time_bias_act(
    bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, compiles: bool
) -> None:
    """Forward: x read, y written. Backward in x: dy and y read, dx written."""
    x = draw(bench, dtype, *shape, channels_last=channels_last)
    b = draw(bench, dtype, shape[1])
    more = [
        draw(bench, dtype, *shape, channels_last=channels_last)
        for _ in range(2 * sets_for(2 * size_of(x), bench.device))
    ]
    forward = [(x, b) for x in more[::2]]
    backward = [(x, b, dy) for x, dy in zip(more[::2], more[1::2])]
    exact = [t.to(wider(dtype)) for t in backward[0]]

    def act(x, b):
        return bias_act(x, b, act="lrelu", clamp=CLAMP)

    def theirs(x, b):
        return bench.peer.bias_act.bias_act(x, b, act="lrelu", clamp=CLAMP)

    reference = use("reference")(act)
    facts = {"op": "bias_act", "size": shape[-1], "dtype": dtype, "sets": len(forward)}
    for name, planes, run, sets, truth in (
        ("bias_act", 2, over, forward, exact[:2]),
        ("bias_act backward", 3, backward_of, backward, exact),
    ):
        bench.row(
            title(name, shape, channels_last),
            {way: run(f, sets) for way, f in alternatives(bench, act, theirs, compiles).items()},
            exact=lambda run=run, truth=truth: run(reference, [tuple(truth)])(0),
            plain=lambda run=run, sets=sets: run(reference, sets)(0),
            moved=planes * size_of(x),
            **facts,
        )


FILTERS = {"up2": (2, 1), "down2": (1, 2), "filter": (1, 1)}


def time_upfirdn2d(
    bench: Bench,
    shape: tuple[int, ...],  # of the larger side
    dtype: torch.dtype,
    kind: str,  # a name of FILTERS
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
    x = draw(bench, dtype, *shape, channels_last=channels_last)
    moved = size_of(x) * (1 + up**2 / down**2)
    sets = [(x,)] + [
        (draw(bench, dtype, *shape, channels_last=channels_last),)
        for _ in range(sets_for(int(moved), bench.device) - 1)
    ]
    how = {"up": up, "down": down, "padding": padding, "gain": float(up**2)}

    def resample(x):
        return upfirdn2d(x, f, **how)

    reference = use("reference")(resample)
    theirs = None
    if bench.peer:
        their_f = bench.peer.upfirdn2d.setup_filter(list(taps), device=bench.device)

        def theirs(x):
            return bench.peer.upfirdn2d.upfirdn2d(x, their_f, **how | {"padding": list(padding)})

    bench.row(
        title(f"upfirdn2d {kind}, {k} taps", shape, channels_last),
        {way: over(g, sets) for way, g in alternatives(bench, resample, theirs, compiles).items()},
        exact=lambda: reference(x.to(wider(dtype))),
        plain=lambda: reference(x),
        dtype=dtype,
        sets=len(sets),
        moved=moved,
        op="upfirdn2d",
        size=h,
    )


# ----------------------------------------------------------------------------------- modulated convolution


def layers(
    largest: int,  # size of the larger network's images
    channel_max: int,
) -> Iterator[tuple[str, int, int, int]]:
    """Kind, input channels, output channels, size of the output: the layers of the 256x256 network with channel base
    16384 and of the 1024x1024 network with 32768, largest first, each once."""
    found = {}
    for top, base in ((min(1024, largest), 32768), (min(256, largest), 16384)):
        for size in (s for s in (1024, 512, 256, 128, 64, 32, 16, 8, 4) if s <= top):
            o = min(base // size, channel_max)
            i = min(base // size * 2, channel_max)
            found |= {("up", i, o, size): None} if size > 4 else {}
            found |= {("conv", o, o, size): None, ("torgb", o, 3, size): None}
    yield from sorted(found, key=lambda layer: -layer[-1])


def time_modulated_conv2d(
    bench: Bench, batch: int, kind: str, i: int, o: int, size: int, dtype: torch.dtype, compiles: bool
) -> None:
    up, k = (2 if kind == "up" else 1), (1 if kind == "torgb" else 3)
    x_size = size // up
    f = fir_filter(TAPS).to(bench.device)
    noise = None if kind == "torgb" else draw(bench, torch.float32, 1, 1, size, size)
    strength = torch.full([], 0.1, device=bench.device)
    how = {"demodulate": kind != "torgb", "up": up, "act": "linear" if kind == "torgb" else "lrelu"}

    def some():
        x = draw(bench, dtype, batch, i, x_size, x_size, channels_last=True)
        w = draw(bench, torch.float32, o, i, k, k, channels_last=True) / (i * k * k) ** 0.5
        return x, w, 1 + 0.3 * draw(bench, torch.float32, batch, i), draw(bench, torch.float32, o)

    def layer(x, w, style, b):
        more = {} if noise is None else {"noise": noise.to(w.dtype), "noise_strength": strength.to(w.dtype)}
        return modulated_conv2d(x, w, style, b=b, f=f, clamp=CLAMP, **more, **how)

    first = some()
    y = torch.empty(batch, o, size, size, dtype=dtype, device="meta")
    moved = size_of(first[0], y) + first[1].numel() * y.element_size() + (0 if noise is None else size_of(noise))
    sets = [first, *(some() for _ in range(sets_for(moved, bench.device) - 1))]
    ways = _ways(bench, layer, noise, strength, f, how, compiles)
    candidates = {way: over(function, sets) for way, function in ways.items()}
    if bench.peer:
        candidates |= _their_ways(bench, sets, noise, strength, how)
    bench.row(
        title(f"modulated_conv2d {kind}", (batch, i, o, size, size), False),
        candidates,
        exact=lambda: ways["reference"](*(t.to(wider(dtype)) for t in first)),
        plain=lambda: ways["reference"](*first),
        dtype=dtype,
        sets=len(sets),
        moved=moved,
        flop=2 * batch * i * o * k * k * x_size * x_size,
        op="modulated_conv2d",
        kind=kind,
        size=size,
    )


def _ways(bench: Bench, layer: Callable, noise, strength, f: Tensor, how: dict, compiles: bool) -> dict[str, Callable]:
    ways = {"ours": layer}
    if bench.cuda:
        # What cannot be fused raises no error: it takes the kernels, and shows their time.
        ways["fused"] = use("fused")(layer)
        ways["kernels"] = use("cuda")(layer)
        ways["composite"] = use("composite")(layer)
    ways["reference"] = use("reference")(layer)
    ways["grouped"] = lambda x, w, s, b: _plain.modulated_grouped(
        x, w, s, f=f, noise=noise, noise_strength=strength, b=b, clamp=CLAMP, **how
    )
    if compiles:
        ways["compiled"] = use("reference")(compiled(layer))
    return ways


def _their_ways(bench: Bench, sets: list[tuple], noise, strength, how: dict) -> dict[str, Callable]:
    """With and without the weights of each sample's own, in the layout that is theirs by default."""
    f = bench.peer.upfirdn2d.setup_filter(list(TAPS), device=bench.device)
    noise = None if noise is None else noise * strength
    sets = [(x.contiguous(), w.contiguous(), style, b) for x, w, style, b in sets]

    def theirs(grouped, x, w, style, b):
        return _peer.modulated_layer(bench.peer, x, w, style, noise, b, f, clamp=CLAMP, grouped=grouped, **how)

    return {
        "peer": over(functools.partial(theirs, False), sets),
        "peer grouped": over(functools.partial(theirs, True), sets),
    }


if __name__ == "__main__":
    main()
