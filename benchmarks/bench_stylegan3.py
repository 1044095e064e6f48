"""Synthesis of StyleGAN3-T and R images, compared with inserting zeros in every filtered_lrelu.

python benchmarks/bench_stylegan3.py --rounds 3
python benchmarks/bench_stylegan3.py --network r --size 128

Networks of the published widths with fresh weights; on a GPU the highest rates are in half precision.
"""

from __future__ import annotations

import functools

import click
import torch
from _harness import Bench, benchmark, cycle_through
from _options import Numbers

from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.ops import use

NETWORKS = {
    "t": {},
    "r": {"kernel": 1, "radial": True, "channel_base": 65536, "channel_max": 1024},
}


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), multiple=True, default=list(NETWORKS), show_default=True)
@click.option("--size", type=Numbers(), default="256", show_default=True, help="Image sizes.")
@click.option("--batch", type=Numbers(), default="1", show_default=True, help="Batch sizes.")
@benchmark
@torch.no_grad()
def main(bench: Bench, network, size, batch) -> None:
    for name in network:
        for side in size:
            G = build_generator(StyleGAN3Config(side, side, **NETWORKS[name])).eval().to(bench.device)
            for n in batch:
                measure(bench, name, G, n)


def measure(bench: Bench, name: str, G, batch: int) -> None:
    half = torch.float16 if bench.cuda else None
    sets = [(G.mapping(torch.randn(batch, 512, device=bench.device)),) for _ in range(2)]
    ours = functools.partial(G.synthesis, dtype=half)
    functions = {"ours": ours, "reference": use("reference")(ours)}
    if bench.cuda:
        functions["composite"] = use("composite")(ours)
    side = G.config.width
    bench.row(
        f"synthesis of StyleGAN3-{name.upper()} {side}x{side}, batch {batch}",
        {key: cycle_through(function, sets) for key, function in functions.items()},
        exact=lambda: use("reference")(G.synthesis)(*sets[0]),
        plain=lambda: functions["reference"](*sets[0]),
        tolerance=0.0 if half else 1e-4,
        dtype=half or torch.float32,
        sets=len(sets),
        ahead=False,
        op="stylegan3",
        size=side,
        batch=batch,
    )


if __name__ == "__main__":
    main()
