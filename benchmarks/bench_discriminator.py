"""The operations that only the discriminator has, at 256x256: minibatch standard deviation with its gradient; on a GPU
also bias, activation and the filter after them, and the weights of all layers, each against the same one by one.

python benchmarks/bench_discriminator.py
"""

from __future__ import annotations

import click
import torch
from _harness import Bench, benchmark, count_input_sets, cycle_through, wider_dtype
from torch import Tensor

from stylegan_cli.ops import append_minibatch_std, bias_act, fir_filter, scaled_weights_of_layers, upfirdn2d, use
from stylegan_cli.ops.activated_blur import activated_blur
from stylegan_cli.ops.modulation import scaled_weights

PADDING, CLAMP = (2, 2, 2, 2), 256.0  # before a 3x3 convolution that halves the size


@click.command()
@click.option("--batch", default=16, show_default=True)
@click.option("--channel-max", default=512, show_default=True)
@benchmark
def main(bench: Bench, batch: int, channel_max: int) -> None:
    time_deviation(bench, batch, channel_max)
    if bench.cuda:
        for size in (256, 128, 64, 32):
            time_blur(bench, (batch, min(16384 // size, channel_max), size, size))
        time_weights(bench, channel_max)


def randn(bench: Bench, dtype: torch.dtype, *shape: int) -> Tensor:
    x = torch.randn(shape, device=bench.device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def time_deviation(bench: Bench, batch: int, channels: int) -> None:
    x = randn(bench, torch.float32, batch, channels, 4, 4)

    def with_gradient(x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        y = append_minibatch_std(x, 4)
        return [y.detach(), *torch.autograd.grad(y, x, y.detach())]

    reference = use("reference")(with_gradient)
    bench.row(
        f"minibatch_std {batch}x{channels}x4x4",
        {name: cycle_through(f, [(x,)]) for name, f in {"ours": with_gradient, "reference": reference}.items()},
        exact=lambda: reference(x.double()),
        plain=lambda: reference(x),
        dtype=x.dtype,
        sets=1,
        moved=5 * x.numel() * x.element_size(),  # forward x, y; backward dy, x, dx
        op="minibatch_std",
        size=4,
    )


@torch.no_grad()
def time_blur(bench: Bench, shape: tuple[int, int, int, int]) -> None:
    f, b = fir_filter((1, 3, 3, 1)).to(bench.device), randn(bench, torch.float32, shape[1])
    moved = 2 * 2 * torch.Size(shape).numel()
    sets = [(randn(bench, torch.float16, *shape),) for _ in range(count_input_sets(moved, bench.device))]

    def together(x: Tensor) -> Tensor:
        return activated_blur((b, "lrelu", 2**0.5, CLAMP), x, f, 1, 1, PADDING, False, 1.0)

    def separate(x: Tensor) -> Tensor:
        return upfirdn2d(bias_act(x, b.to(x.dtype), "lrelu", clamp=CLAMP), f, padding=PADDING)

    reference = use("reference")(separate)
    bench.row(
        f"activated_blur {'x'.join(map(str, shape))}",
        {name: cycle_through(g, sets) for name, g in {"ours": together, "separate": separate}.items()},
        exact=lambda: reference(sets[0][0].to(wider_dtype(torch.float16))),
        plain=lambda: reference(*sets[0]),
        dtype=torch.float16,
        sets=len(sets),
        moved=moved,
        op="activated_blur",
        size=shape[-1],
    )


@torch.no_grad()
def time_weights(bench: Bench, channels: int) -> None:
    weights = [randn(bench, torch.float32, channels, channels, k, k) for k in (3, 3, 1) for _ in range(5)]
    gains = [0.1] * len(weights)

    def together() -> list[Tensor]:
        return [once for once, _ in scaled_weights_of_layers(weights, gains, torch.float16)]

    def separate() -> list[Tensor]:
        return [scaled_weights(w, gain, torch.float16)[0] for w, gain in zip(weights, gains, strict=True)]

    bench.row(
        f"scaled_weights of {len(weights)} layers",
        {name: cycle_through(f, [()]) for name, f in {"ours": together, "separate": separate}.items()},
        exact=lambda: [w.double() * gain for w, gain in zip(weights, gains, strict=True)],
        plain=lambda: [(w * gain).half() for w, gain in zip(weights, gains, strict=True)],
        dtype=torch.float16,
        sets=1,
        moved=6 * sum(w.numel() for w in weights),
        op="scaled_weights",
        size=channels,
    )


if __name__ == "__main__":
    main()
