"""filtered_lrelu in the layers of StyleGAN3's networks at 256x256, compared with inserting zeros.

On a GPU in both memory layouts, where the op has a kernel and 'composite' are PyTorch operations.

python benchmarks/bench_filtered_lrelu.py
python benchmarks/bench_filtered_lrelu.py --network r --rounds 3
python benchmarks/bench_filtered_lrelu.py --peer ../stylegan3

T has separable filters, R radial ones for downsampling. The results of the first channels are verified.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import click
import torch
from _harness import Bench, Run, benchmark, count_input_sets, cycle_through, wider_dtype
from torch import Tensor

from stylegan_cli.ops import filtered_lrelu, lowpass_filter, use

VERIFIED = 4  # channels


class Layer(NamedTuple):
    channels: int
    size: int  # of the input: that of the layer before, plus the convolution's margin
    up: int
    padding: tuple[int, int]  # before and after, on both axes
    cutoffs: tuple[float, float]  # before and after, in units of the higher rate
    half_widths: tuple[float, float]
    radial: bool


# Layers of equal rates in and out, then those that double the rate.
SAME, DOUBLING = ((2**-3.5, 2**-3), (2**-3.5, 2**-3)), ((2**-3.5, 2**-3.5), (0.16, 0.16))
CRITICAL = ((2**-2, 2**-2), (0.0578, 0.0578))
LAYERS = {
    "t": [
        Layer(512, 38, 2, (9, 8), *SAME, False),
        Layer(512, 38, 4, (-6, -9), *DOUBLING, False),
        Layer(512, 54, 2, (9, 8), *SAME, False),
        Layer(512, 54, 4, (-6, -9), *DOUBLING, False),
        Layer(512, 86, 2, (9, 8), *SAME, False),
        Layer(512, 86, 4, (-6, -9), *DOUBLING, False),
        Layer(512, 150, 2, (9, 8), *SAME, False),
        Layer(362, 150, 2, (9, 8), *SAME, False),
        Layer(256, 150, 4, (-6, -9), *DOUBLING, False),
        Layer(181, 278, 2, (9, 8), *SAME, False),
        Layer(128, 278, 2, (9, 8), *CRITICAL, False),
        Layer(128, 278, 2, (-11, -12), *CRITICAL, False),
    ],
    "r": [
        Layer(1024, 36, 2, (11, 10), *SAME, True),
        Layer(1024, 36, 4, (-2, -5), *DOUBLING, True),
        Layer(1024, 52, 2, (11, 10), *SAME, True),
        Layer(1024, 52, 4, (-2, -5), *DOUBLING, True),
        Layer(1024, 84, 2, (11, 10), *SAME, True),
        Layer(1024, 84, 4, (-2, -5), *DOUBLING, True),
        Layer(1024, 148, 2, (11, 10), *SAME, True),
        Layer(724, 148, 2, (11, 10), *SAME, True),
        Layer(512, 148, 4, (-2, -5), *DOUBLING, True),
        Layer(362, 276, 2, (11, 10), *SAME, True),
        Layer(256, 276, 2, (11, 10), *CRITICAL, False),
        Layer(256, 276, 2, (-9, -10), *CRITICAL, False),
    ],
}


@click.command()
@click.option("--network", type=click.Choice(list(LAYERS)), multiple=True, default=list(LAYERS), show_default=True)
@click.option("--batch", type=int, help="Default: 8, or 1 on a CPU.")
@click.option("--channel-max", default=1024, show_default=True)
@click.option("--size-max", default=278, show_default=True, help="Skip layers with larger inputs.")
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Default: float16, or float32 on a CPU."
)
@benchmark
def main(bench: Bench, network, batch: int | None, channel_max: int, size_max: int, dtype: str | None) -> None:
    batch = batch or (8 if bench.cuda else 1)
    dtype = getattr(torch, dtype or ("float16" if bench.cuda else "float32"))
    for name in network:
        for layer in reversed(LAYERS[name]) if bench.cuda else LAYERS[name]:  # on a GPU the largest matter
            if layer.size <= size_max:
                layer = layer._replace(channels=min(layer.channels, channel_max))
                for channels_last in (True, False) if bench.cuda else (False,):
                    time_layer(bench, name, layer, batch, dtype, channels_last)


def time_layer(bench: Bench, name: str, layer: Layer, batch: int, dtype: torch.dtype, channels_last: bool) -> None:
    c, size, up = layer[:3]
    f_c, f_h = layer.cutoffs, layer.half_widths
    fu = lowpass_filter(6 * up, f_c[0], f_h[0], 1.0).to(bench.device)
    fd = lowpass_filter(12, f_c[1], f_h[1], 1.0, layer.radial).to(bench.device)
    x = torch.randn(batch, c, size, size, device=bench.device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    b = torch.randn(c, device=bench.device).to(dtype)
    options = {"fu": fu, "fd": fd, "up": up, "down": 2, "padding": layer.padding * 2, "clamp": 256.0}

    def op(x: Tensor, b: Tensor) -> Tensor:
        return filtered_lrelu(x, b, **options)

    def peer_op(x: Tensor, b: Tensor) -> Tensor:
        return bench.peer.filtered_lrelu.filtered_lrelu(x, b=b, **options | {"padding": list(options["padding"])})

    dy = torch.randn_like(filtered_lrelu(x, b, **options))
    few = [t.to(wider_dtype(dtype)) for t in (x[:, :VERIFIED], b[:VERIFIED], dy[:, :VERIFIED])]
    for direction, run in (("forward", forward), ("forward and backward", forward_and_backward)):
        reference = functools.partial(use("reference")(run), op)
        kind = f"{' radial' if layer.radial else ''}{' channels_last' if channels_last else ''}"
        bench.row(
            f"filtered_lrelu, {name.upper()} {c}x{size}x{size} up {up}{kind}, {direction}",
            alternatives(bench, functools.partial(run, op), functools.partial(run, peer_op), (x, b, dy)),
            exact=functools.partial(reference, *few),
            plain=functools.partial(reference, *(t.to(dtype) for t in few)),
            dtype=dtype,
            moved=x.element_size() * (x.numel() + dy.numel()) * (1 if direction == "forward" else 2),
            op="filtered_lrelu",
            size=size,
        )


@torch.no_grad()
def forward(op: Callable, x: Tensor, b: Tensor, dy: Tensor) -> Tensor:
    return op(x, b)[:, :VERIFIED]


def forward_and_backward(op: Callable, x: Tensor, b: Tensor, dy: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(op(x, b), x, dy)[0][:, :VERIFIED]


def alternatives(bench: Bench, ours: Callable, peer: Callable, tensors: tuple[Tensor, ...]) -> dict[str, Run]:
    functions = {"ours": ours, "reference": use("reference")(ours)}
    if bench.cuda:
        functions["composite"] = use("composite")(ours)
    if bench.peer and bench.peer.filtered_lrelu:
        functions["peer"] = peer
    sets = [tensors]
    if bench.cuda:
        x, b, dy = tensors
        size = (x.numel() + dy.numel()) * x.element_size()
        sets += [(x.clone(), b, dy.clone()) for _ in range(count_input_sets(size, bench.device) - 1)]
    return {name: cycle_through(function, sets) for name, function in functions.items()}


if __name__ == "__main__":
    main()
