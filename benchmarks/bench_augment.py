"""The cost of augmentation: a batch of images through a pipeline, and the gradient back to them.

python benchmarks/bench_augment.py --size 64 --batch 16
python benchmarks/bench_augment.py --pipe bgc,bgcfnc

'graphed' is ours as one CUDA graph: the difference is the cost of launching its many small operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import click
import torch
from _harness import Bench, backward_of, benchmark, cycle_through, graphed, wider_dtype
from _options import Numbers
from torch import Tensor

from stylegan_cli.ops import use
from stylegan_cli.training.augment import PIPES, Augment


@click.command()
@click.option("--pipe", default="bgc", show_default=True, help="Comma-separated names of pipelines.")
@click.option("--size", type=Numbers(), default="64", show_default=True)
@click.option("--batch", default=16, show_default=True)
@benchmark
def main(bench: Bench, pipe: str, size, batch: int) -> None:
    for name in pipe.split(","):
        if name not in PIPES:
            raise click.BadParameter(f"{name!r} is not a pipeline. Use {', '.join(PIPES)}.", param_hint="--pipe")
        for side in size:
            measure(bench, name, (batch, 3, side, side))


def measure(bench: Bench, pipe: str, shape: tuple[int, int, int, int]) -> None:
    torch.manual_seed(1)
    sets = [tuple(torch.randn(shape, device=bench.device) for _ in range(2)) for _ in range(2)]  # samples, dy
    samples = [tensors[:1] for tensors in sets]
    title = f"augment {pipe} {shape[2]}x{shape[3]}, batch {shape[0]}"
    facts = {"op": "augment", "pipe": pipe, "size": shape[2], "batch": shape[0]}
    augment = augmentation(pipe, shape[0], bench.device)
    plain = use("reference")(augment)
    # Tolerance: float32 sampling coordinates are exact to only a ten-thousandth of a pixel.
    facts |= {"dtype": torch.float32, "sets": 2, "ahead": False, "tolerance": 1e-3}
    runs = {"ours": cycle_through(augment, samples)}
    if bench.cuda:  # a CPU has nothing faster for the long filter than the reference
        runs["reference"] = cycle_through(plain, samples)
        runs["graphed"] = graphed(augment, samples, torch.cuda.graph_pool_handle())
    wide = [tuple(t.to(wider_dtype(torch.float32)) for t in sets[0])]
    exact = {"exact": cycle_through(plain, [wide[0][:1]]), "plain": cycle_through(plain, samples)}
    with torch.no_grad():
        forward = bench.row(f"{title}, forward", runs, **_at_0(exact), **facts)
    if forward is None:
        return
    runs = {
        name: backward_of(function, sets)
        for name, function in (("ours", augment), ("reference", plain))
        if name in runs
    }
    exact = {"exact": backward_of(plain, wide), "plain": backward_of(plain, sets)}
    bench.row(f"{title}, backward", runs, **_at_0(exact), **facts)


def augmentation(pipe: str, batch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Augmentation of images 0, 1, 2 ..., with each transformation applied with probability one half."""
    augment, p = Augment(pipe, seed=0), torch.tensor(0.5, device=device)
    index = torch.arange(batch, device=device)
    return lambda images: augment(images, p, "bench", index)


def _at_0(runs: dict[str, Callable]) -> dict[str, Callable]:
    return {name: functools.partial(run, 0) for name, run in runs.items()}


if __name__ == "__main__":
    main()
