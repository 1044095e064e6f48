"""One step of projection compared with the network passes that it needs, and a batch compared with single images.

python benchmarks/bench_project.py --size 64,256

The loss is LPIPS with a VGG16 with random weights: only the time is meaningful.
"""

from __future__ import annotations

import statistics

import click
import torch
from _harness import Bench, Run, benchmark, compare
from _options import Numbers
from torch import nn

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.detectors import Lpips
from stylegan_cli.detectors.distances import LpipsLoss
from stylegan_cli.detectors.frozen import to_device
from stylegan_cli.detectors.lpips import LpipsNetwork
from stylegan_cli.inversion.projector import ProjectionOptions, Projector
from stylegan_cli.models.registry import build_generator
from stylegan_cli.training.presets import make_train_config


@click.command()
@click.option("--size", type=Numbers(), default="64,256", show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--channel-base", type=int, help="Default: from the preset.")
@benchmark
def main(bench: Bench, size: tuple[int, ...], batch: int, channel_base: int | None) -> None:
    loss = random_lpips(bench.device)
    for side in size:
        spec = DataSpec("none", "", 1, side, side, 3, side, side)
        config = make_train_config("auto", spec, channel_base=channel_base)
        torch.manual_seed(0)
        G = build_generator(config.generator).to(bench.device).eval().requires_grad_(False)
        targets = torch.randn(batch, 3, side, side, device=bench.device).clamp(-1, 1)
        batch_projector = Projector(G, targets, loss, ProjectionOptions(steps=10**9, candidates=0))
        single = Projector(G, targets[:1], loss, ProjectionOptions(steps=10**9, candidates=0))
        title = f"projection {side}x{side}, base {config.generator.channel_base}"
        add_row(bench, f"{title}, one step of one image", ours=step(single), bare=passes(single))
        runs = {"ours": step(batch_projector), "bare": passes(batch_projector), "singles": step(single, batch)}
        add_row(bench, f"{title}, one step of {batch} images", **runs)


def add_row(bench: Bench, case: str, **runs: Run) -> None:
    """Time the runs and add a row. Ratios are the times of the others over ours: what 'bare' lacks to 1 is overhead."""
    times = compare(runs, bench.device, sets=1, rounds=bench.rounds, ahead=False)
    seconds = {name: statistics.median(ts) for name, ts in times.items()}
    ratio = {name: statistics.median(t / o for t, o in zip(ts, times["ours"])) for name, ts in times.items()}
    row = {"case": case, "op": "project", "dtype": "float32", "first": "ours", "wrong": [], "failed": {}}
    others = {name: value for name, value in ratio.items() if name != "ours"}
    bench.add({**row, "seconds": seconds, "ours": seconds["ours"], "ratio": others})


def step(projector: Projector, times: int = 1) -> Run:
    def run(_: int) -> None:
        for _ in range(times):
            projector.step()

    return run


def passes(projector: Projector) -> Run:
    """Only synthesis, loss and their gradients."""
    projector = Projector(projector.G, projector.targets, projector.loss, projector.options)
    noise = projector.noise

    def run(_: int) -> tuple[torch.Tensor, ...]:
        images = projector.G.synthesis(projector.x.expand(-1, projector.G.num_ws, -1), noise=noise)
        distance = projector.loss.distance(projector.loss.features(images), projector.features)
        return torch.autograd.grad(distance.sum(), [projector.x, *noise])

    return run


def random_lpips(device: torch.device) -> LpipsLoss:
    torch.manual_seed(0)
    network = LpipsNetwork("vgg")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for name, channels in network.named_buffers():
        network.get_buffer(name).copy_(torch.rand(len(channels)))
    return LpipsLoss(Lpips("vgg", "random", False, to_device(network.eval().requires_grad_(False), device)))


if __name__ == "__main__":
    main()
