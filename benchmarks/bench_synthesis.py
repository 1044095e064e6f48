"""Synthesis of StyleGAN2 images with prepared weights, eager and as one CUDA graph.

python benchmarks/bench_synthesis.py --size 256 --batch 4
python benchmarks/bench_synthesis.py --peer ../stylegan3

On a GPU the highest levels are in half precision. `unprepared` is the network itself, as in training. The floor is the
time that the device needs for the multiplications of the convolutions, or to read and write each layer once, whichever
is longer, given its measured ceilings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import _peer
import _plain
import click
import torch
from _harness import Bench, benchmark, compiled, cycle_through, graphed, time_share
from _options import Numbers
from torch import nn

from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.ops import use
from stylegan_cli.sampling.generate import SamplingOptions


@click.command()
@click.option("--size", type=Numbers(), help="Image sizes. Default: 256,1024, or 256 on a CPU.")
@click.option("--batch", type=Numbers(), help="Batch sizes. Default: 1,8,32, or 4 on a CPU.")
@click.option("--channel-base", type=int, help="Default: 16384, or 32768 from 512 pixels up.")
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Default: float16, or float32 on a CPU."
)
@click.option("--compile", "compiles", is_flag=True, help="Also measure torch.compile, which takes minutes.")
@click.option("--tf32", is_flag=True, help="All candidates round float32 operands to TF32.")
@benchmark
@torch.no_grad()
def main(bench: Bench, size, batch, channel_base: int | None, dtype: str | None, compiles: bool, tf32: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dtype = getattr(torch, dtype or ("float16" if bench.cuda else "float32"))
    for side in size or ((256, 1024) if bench.cuda else (256,)):
        G = generator(side, channel_base or (16384 if side < 512 else 32768), bench.device)
        for n in batch or ((1, 8, 32) if bench.cuda else (4,)):
            measure(bench, G, n, dtype, compiles, ", TF32" if tf32 else "")


def generator(size: int, channel_base: int, device: torch.device) -> nn.Module:
    """A generator whose biases and noise have a visible effect."""
    G = build_generator(StyleGAN2Config(size, size, channel_base=channel_base, conv_clamp=None)).eval().to(device)
    for name, parameter in G.synthesis.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
        elif name.endswith(("0.bias", "1.bias", "rgb.bias")):
            parameter.normal_(std=0.1)
    return G


def measure(bench: Bench, G: nn.Module, batch: int, dtype: torch.dtype, compiles: bool, note: str) -> None:
    half = dtype if dtype != torch.float32 else None
    sets = [(G.mapping(torch.randn(batch, 512, device=bench.device)),) for _ in range(2)]
    ours = functools.partial(frozen_synthesis(G.requires_grad_(False)), dtype=half)
    unprepared = functools.partial(G.synthesis, dtype=half)
    reference = use("reference")(unprepared)
    exact = use("reference")(G.synthesis)
    functions = {"ours": ours, "unprepared": unprepared, "reference": reference}
    if bench.cuda:
        functions["fused"] = use("fused")(ours)
        functions["composite"] = use("composite")(ours)
    else:
        functions["grouped convolutions, per-sample weights"] = plain_synthesis(G, _plain.modulated_grouped)
        functions["x * s, convolution, * d"] = plain_synthesis(G, _plain.modulated_scale)
    automatic = {} if bench.cuda or half else in_precisions(G, "auto", "bf16")
    if bench.peer:
        for name, channels_last in _peer.LAYOUTS.items():
            functions[name] = peer_synthesis(bench, G, half, channels_last)
    functions |= automatic
    modes = {"": (cycle_through, functions)}
    if bench.cuda:
        fast = {name: function for name, function in functions.items() if name != "reference"}
        modes[", CUDA graph"] = (functools.partial(graphed, pool=torch.cuda.graph_pool_handle()), fast)
    if compiles:
        functions["compiled"] = use("reference")(compiled(unprepared))
    for mode, (run, candidates) in modes.items():
        row = bench.row(
            f"synthesis {G.config.height}x{G.config.width}, base {G.config.channel_base}, batch {batch}{note}{mode}",
            {name: run(function, sets) for name, function in candidates.items()},
            exact=lambda: exact(sets[0][0]) if half else _in_float64(G, sets[0][0]),
            plain=lambda: reference(sets[0][0]),
            dtype=dtype,
            sets=len(sets),
            ahead=False,  # include the host's time, as users experience it
            unverified=tuple(automatic),
            finish=functools.partial(add_rates, bench, G, batch, half),
            op="synthesis",
            size=G.config.height,
            batch=batch,
            mode="graph" if mode else "eager",
        )
        if row and not bench.cuda:
            print(f"  outside convolutions: {1 - time_share(lambda: ours(*sets[0]), ('conv',)):.0%} of our time")


def in_precisions(G: nn.Module, *precisions: str) -> dict[str, Callable]:
    """Our synthesis as --precision computes it, whose errors tests/sampling/test_generate.py bounds."""
    chosen = [SamplingOptions(precision=name) for name in precisions]
    names = [f"--precision {options.precision} ({options.precision_for(G)})" for options in chosen]
    return {name: options.synthesizer(G) for name, options in zip(names, chosen, strict=True)}


def _in_float64(G: nn.Module, ws: torch.Tensor) -> torch.Tensor:
    other = build_generator(G.config).eval().to(ws.device)
    other.load_state_dict(G.state_dict())
    with use("reference"):
        return other.double().synthesis(ws.double())


def plain_synthesis(G: nn.Module, modulated: Callable) -> Callable:
    """Synthesis with a plain implementation of modulated convolution, in PyTorch's default layout."""
    other = build_generator(G.config).eval()
    other.load_state_dict(G.state_dict())
    other.to(memory_format=torch.contiguous_format)
    return _plain.use(modulated)(other.synthesis)


def peer_synthesis(bench: Bench, G: nn.Module, half: torch.dtype | None, channels_last: bool) -> Callable:
    """The peer's network with our weights. Its half precision is float16."""
    network = _peer.synthesis(bench.peer, G.config, half is not None, channels_last).eval().to(bench.device)
    _peer.copy_weights(network, G.synthesis)
    return functools.partial(network, noise_mode="const")


def add_rates(bench: Bench, G: nn.Module, batch: int, half: torch.dtype | None, row: dict) -> None:
    row["images_per_second"] = {name: batch / seconds for name, seconds in row["seconds"].items()}
    row["floor"] = minimum_seconds(G, batch, half, bench.ceilings)
    row["of_floor"] = row["floor"] / row["ours"]


def minimum_seconds(
    G: nn.Module,
    batch: int,
    half: torch.dtype | None,  # precision of the highest levels
    ceilings: dict[str, float],
) -> float:
    """Smallest possible seconds: for each convolution, its multiplications, or one read and one write of features."""
    total = 0.0
    for row in G.layers:
        if row.kind == "conv":
            layer = G.get_submodule(row.name)
            dtype = half if half is not None and row.half else torch.float32
            o, i = layer.weight.shape[:2]
            y = row.height * row.width
            x = y // layer.up**2
            product = ceilings[f"matmul_tflops_{str(dtype).removeprefix('torch.')}"] * 1e12
            moved = (batch * (i * x + o * y) + 9 * i * o) * dtype.itemsize
            total += max(2 * 9 * batch * i * o * x / product, moved / (ceilings["copy_gbs"] * 1e9))
    return total


if __name__ == "__main__":
    main()
