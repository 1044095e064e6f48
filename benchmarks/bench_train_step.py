"""One training step with all four phases, against plain x * s, convolution, * d and separate elementwise operations.

python benchmarks/bench_train_step.py --size 64 --batch 8
"""

from __future__ import annotations

import _plain
import click
import torch
from _harness import compare, report, time_by_op

from stylegan_cli.config import DataSpec, make_train_config
from stylegan_cli.models import build_discriminator, build_generator
from stylegan_cli.training.objective import Batch, Objective
from stylegan_cli.training.stats import Means


@click.command()
@click.option("--size", default=64)
@click.option("--channel-base", default=16384)
@click.option("--batch", default=8)
@click.option("--rounds", default=5)
def main(size: int, channel_base: int, batch: int, rounds: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = DataSpec("none", "", 1, size, size, 3, size, size)
    config = make_train_config("auto", spec, batch=batch, channel_base=channel_base)
    pictures = torch.randn(batch, 3, size, size, device=device)
    empty = torch.zeros(batch, 0, device=device)
    data = Batch(pictures, empty, empty, torch.arange(batch, device=device))
    candidates, gradients = {}, {}
    for name in ("ours", "x * s, convolution, * d, separate elementwise"):
        torch.manual_seed(0)
        G, D = build_generator(config.generator).to(device), build_discriminator(config.discriminator).to(device)
        candidates[name] = _step(G, D, Objective(config, G, D, Means()), data, plain=name != "ours")
        candidates[name]()
        gradients[name] = torch.cat([p.grad.flatten() for p in (*G.parameters(), *D.parameters())])
    ours, plain = gradients.values()
    error = ((ours - plain).norm() / plain.norm()).item()
    assert error < 1e-3, f"the gradients differ by {error:.1e}"
    outside = 1 - time_by_op(candidates["ours"], ("conv",))
    report(
        f"training step (G, path length, D, R1) {size}x{size}, channel_base {channel_base}, batch {batch}, {device}",
        compare(candidates, rounds),
        outside_convolutions=f"{outside:.0%} of our time",
    )


def _step(G, D, objective, data, plain: bool):
    phases = [
        (G, objective.generator_main),
        (G, objective.generator_path_length),
        (D, objective.discriminator_main),
        (D, objective.discriminator_r1),
    ]

    def step():
        G.zero_grad()
        D.zero_grad()
        for network, loss in phases:
            G.requires_grad_(network is G)
            D.requires_grad_(network is D)
            loss(data).backward()

    if not plain:
        return step
    for network in (G, D):
        network.to(memory_format=torch.contiguous_format)

    def plain_step():
        with _plain.use(_plain.modulated_scale):
            step()

    return plain_step


if __name__ == "__main__":
    main()
