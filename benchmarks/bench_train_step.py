"""The four phases of a StyleGAN2 training step, and seconds per thousand images with regularizers at their intervals.

python benchmarks/bench_train_step.py --size 64 --batch 4
python benchmarks/bench_train_step.py --size 64 --batch 16 --augpipe bgc        (the cost of augmentation)
python benchmarks/bench_train_step.py --peer ../stylegan3

A phase is loss, gradients and an Adam step, with learning rate 0, so that every call does the same work. On a GPU the
highest levels of both networks are in half precision.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import _peer
import _plain
import click
import torch
from _harness import Bench, Run, benchmark
from _options import Numbers
from torch import nn

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.ops import use
from stylegan_cli.training.augment import PIPES
from stylegan_cli.training.config import TrainConfig
from stylegan_cli.training.graphs import Graphed
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipe import Phase
from stylegan_cli.training.recipes.gan import make_gan_phases
from stylegan_cli.training.recipes.gan_objective import GanBatch, Objective
from stylegan_cli.training.stats import Means

DEFAULTS = {256: 16, 1024: 4}  # size -> batch, on a GPU
PRECISION = {None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
HALF = {name: half for half, name in PRECISION.items()}


@click.command()
@click.option("--size", type=Numbers(), help="Image sizes. Default: 256,1024, or 64 on a CPU.")
@click.option("--batch", type=int, help="Default: 16 at 256, 4 at 1024, 4 on a CPU.")
@click.option("--channel-base", type=int, help="Default: 16384, or 32768 from 512 pixels up.")
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Default: float16, or float32 on a CPU."
)
@click.option("--augpipe", type=click.Choice(list(PIPES)), help="Also measure the step with these augmentations.")
@benchmark
def main(
    bench: Bench, size, batch: int | None, channel_base: int | None, dtype: str | None, augpipe: str | None
) -> None:
    dtype = getattr(torch, dtype or ("float16" if bench.cuda else "float32"))
    for side in size or (DEFAULTS if bench.cuda else (64,)):
        n = batch or (DEFAULTS.get(side, 8) if bench.cuda else 4)
        spec = DataSpec("none", "", 1, side, side, 3, side, side)
        config = make_train_config("auto", spec, batch=n, channel_base=channel_base, lr=0.0, aug="noaug")
        measure(bench, config, dtype, augpipe)


def measure(bench: Bench, config: TrainConfig, dtype: torch.dtype, augpipe: str | None) -> None:
    torch.manual_seed(1)
    side, n = config.data.height, config.batch
    images = torch.randn(n, 3, side, side, device=bench.device)
    half = dtype if dtype != torch.float32 else None
    phases = functools.partial(our_phases, config, images)
    reference = functools.partial(use, "reference")
    contexts: dict[str, Callable] = {"ours": torch.enable_grad, "reference": reference}
    if bench.cuda:
        contexts["composite"] = functools.partial(use, "composite")
    unverified = [*_peer.LAYOUTS]
    makers = {name: functools.partial(phases, half, context) for name, context in contexts.items()}
    if bench.cuda:
        makers["CUDA graphs"] = lambda: captured(phases(half, torch.enable_grad, graphs=True))
    if not bench.cuda:
        plain = functools.partial(_plain.use, _plain.modulated_scale)
        name = "x * s, convolution, * d, separate elementwise"
        makers[name] = functools.partial(phases, half, plain, torch.contiguous_format)
        name = f"--precision auto ({automatic_precision(config)})"
        unverified.append(name)  # tests/training/test_objective.py bounds its error
        makers[name] = functools.partial(phases, HALF[automatic_precision(config)], torch.enable_grad)
    if augpipe:
        augmented = dataclasses.replace(config, aug="fixed", augpipe=augpipe, aug_p=0.5)
        makers[f"with {augpipe}"] = functools.partial(our_phases, augmented, images, half, torch.enable_grad)
    exact = phases(None, reference, dtype=torch.float32 if half else torch.float64)
    plain = phases(half, reference)
    # The peer has its own random numbers, so its gradients cannot be verified against ours.
    if bench.peer and not bench.no_peer:
        for name, channels_last in _peer.LAYOUTS.items():
            options = (bench.peer, config, half is not None, images, channels_last)
            makers[name] = functools.partial(_peer.training_phases, *options)
    peak = {name: peak_memory(make) for name, make in makers.items()} if bench.cuda else {}
    steps = {name: make() for name, make in makers.items()}
    title = f"training step {side}x{side}, base {config.generator.channel_base}, batch {n}"
    facts = {"op": "train_step", "size": side, "batch": n, "dtype": dtype, "ahead": False}
    facts["unverified"] = (*unverified, *_peer.LAYOUTS, f"with {augpipe}")
    # Rounding can move a value across the kink of an activation, which changes all gradients behind it.
    facts["tolerance"] = 3e-2 if half else 3e-3
    rows = {}
    for phase in exact:
        runs = {name: step[phase] for name, step in steps.items()}
        at_0 = {"exact": functools.partial(exact[phase], 0), "plain": functools.partial(plain[phase], 0)}
        rows[phase] = bench.row(f"{title}, {phase}", runs, **at_0, **facts)
    if all(row and "ours" in row for row in rows.values()):
        bench.add(amortized(config, title, rows) | ({"peak_bytes": peak} if peak else {}))


def automatic_precision(config: TrainConfig) -> str:
    """What --precision auto chooses on this CPU."""
    return make_train_config("auto", config.data, batch=config.batch, precision="auto").precision


def amortized(config: TrainConfig, title: str, rows: dict[str, dict]) -> dict:
    """Time of a step, and per thousand images, with each regularizer divided by its interval."""
    interval = {"G path length": config.pl_interval, "D R1": config.r1_interval}
    names = [name for name in rows["G"]["seconds"] if all(name in row["seconds"] for row in rows.values())]
    step = {name: sum(row["seconds"][name] / interval.get(phase, 1) for phase, row in rows.items()) for name in names}
    verified = {name for name in names[1:] if all(name in row["ratio"] for row in rows.values())}
    return {
        "case": f"{title}, amortized",
        "op": "train_step",
        "size": config.data.height,
        "batch": config.batch,
        "dtype": rows["G"]["dtype"],
        "first": "ours",
        "wrong": [],
        "failed": {},
        "seconds": step,
        "ours": step["ours"],
        "ratio": {name: step[name] / step["ours"] for name in names if name in verified},
        "seconds_per_kimg": {name: seconds * 1000 / config.batch for name, seconds in step.items()},
    }


def our_phases(
    config: TrainConfig,
    images: torch.Tensor,  # [N, C, H, W]
    half: torch.dtype | None,  # precision of the highest levels
    context: Callable,  # context manager that each phase runs in
    layout: torch.memory_format = torch.channels_last,
    dtype: torch.dtype = torch.float32,  # of the weights
    graphs: bool = False,  # the steps will be captured
) -> dict[str, Run]:
    """Names of phases -> one optimizer step, which returns the gradients. Initial weights are always the same."""
    torch.manual_seed(0)
    nets = build_generator(config.generator), build_discriminator(config.discriminator)
    G, D = (net.to(images.device, dtype).to(memory_format=layout).requires_grad_(False) for net in nets)
    config = dataclasses.replace(config, precision=PRECISION[half])
    empty = images.new_zeros(len(images), 0, dtype=dtype)
    data = GanBatch(images.to(dtype), empty, empty, torch.arange(len(images), device=images.device))
    objective = Objective(config, G, D, Means())
    return {phase.name: context()(_step(phase, data)) for phase in make_gan_phases(config, G, D, objective, graphs)}


def _step(phase: Phase, data: GanBatch) -> Run:
    network: nn.Module = phase.network

    def run(_):
        network.requires_grad_(True)
        phase.optimizer.zero_grad(set_to_none=True)
        (phase.loss(data) / len(data.index)).backward()
        network.requires_grad_(False)
        phase.optimizer.step()
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]

    return run


def captured(steps: dict[str, Run]) -> dict[str, Run]:
    """Each step as one CUDA graph, in one pool of memory, as in the training loop."""
    memory = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
    return {name: _captured(run, memory) for name, run in steps.items()}


def _captured(run: Run, memory: tuple) -> Run:
    gradients: list[torch.Tensor] = []

    def work() -> None:
        gradients[:] = run(0)

    graph = Graphed(work, *memory)

    def call(_):
        graph()
        return list(gradients)

    return call


def peak_memory(make: Callable[[], dict[str, Run]]) -> int:
    """Peak memory in bytes of networks, optimizers and a step of every phase."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for run in make().values():
        run(0)
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    main()
