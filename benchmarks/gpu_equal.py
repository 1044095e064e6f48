"""The same seed on the CPU and on a GPU: the losses of 20 training steps of every family, and images of its model.

python benchmarks/gpu_equal.py
python benchmarks/gpu_equal.py --device cpu          (without a GPU: the CPU beside PyTorch's own operations)

Both train in float32 without tensor cores, at 32 x 32 pixels on the bundled dataset, without growing. Rounding grows
from step to step, on one device too: Adam moves a weight by its whole learning rate, however small the gradient whose
sign has changed, and the first StyleGAN normalizes a constant until it has learned. So the learning rates are a tenth
of the usual ones, the CPU trains four steps before, and the GPU starts each step from the CPU's state. Then its losses
must agree within 1e-3, relative to those above 1, and a network's gradients, as Adam averages them, within 2 % of their
length. Images of the CPU's moving average must agree within 1/255. Beside that, without a bound, it trains alone, with
CUDA graphs: the largest difference of losses is recorded for each step, and the first one above 1e-3 is printed.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from _results import command_line, is_cuda, machine, save_entry
from _training import Run, make_config
from measure_families import every_family

from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.metrics.stream import Fakes
from stylegan_cli.models.generator import Generator
from stylegan_cli.models.registry import presets
from stylegan_cli.ops import tensor_cores, use
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.config import TrainConfig
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.gan import Gan, make_engine
from stylegan_cli.training.state import Stateful, gather

CPU = torch.device("cpu")
LOSS, GRADIENT, LEVELS = 1e-3, 2e-2, 1  # bounds; levels of 255
State = dict[str, dict[str, Any]]
Losses = dict[str, float]  # of a step, by name
BEFORE = 4  # steps before those that are compared


@dataclasses.dataclass(frozen=True)
class Compared:
    """A family on both devices, or a model without training."""

    case: str
    levels: int = 0  # the largest difference of images
    loss: float = 0.0  # the largest difference of losses, each step from the same state
    gradient: float = 0.0  # that of a network's gradients, relative to their length
    where: tuple[str, str] = ("", "")  # where they occurred: a loss and a network, and their steps
    alone: list[float] = dataclasses.field(default_factory=list)  # of each step, if each device trains alone
    failures: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:  # not-a-number does not
        is_near = self.loss <= LOSS and self.gradient <= GRADIENT and self.levels <= LEVELS
        return is_near and not self.failures

    def __str__(self) -> str:
        text = f"{self.case:<14} images within {self.levels}/255"
        if any(self.where):
            text += f"  losses {self.loss:.1e} ({self.where[0]})  gradients {self.gradient:.1e} ({self.where[1]})"
        if self.alone:
            apart = next((f"from step {i}" for i, error in enumerate(self.alone) if not error <= LOSS), "never")
            text += f"  alone, above {LOSS:g}: {apart}"
        return "  ".join([text, *self.failures, *([] if self.agrees else ["DIFFERS"])])


@click.command()
@click.option("--device", default="cuda", show_default=True, help="Device to compare with the CPU.")
@click.option("--steps", default=20, show_default=True)
@click.option("--only", default="", metavar="TEXT", help="Only families whose names contain this.")
@click.option("--out", type=click.Path(path_type=Path), help="Results file.")
def main(device: str, steps: int, only: str, out: Path | None) -> None:
    other, found, start = torch.device(device), [], time.perf_counter()
    with tensor_cores(False):
        for result in compare_all(other, steps, only):
            found.append(dataclasses.asdict(result) | {"agrees": result.agrees})
            print(f"{time.perf_counter() - start:6.1f} s  {result}", flush=True)
            if out is not None:
                facts = {"part": "equal", "steps": steps, "bounds": [LOSS, GRADIENT, LEVELS], "compared": found}
                save_entry(out, {"command": command_line(sys.argv), "machine": machine(other), **facts})
    if wrong := [row["case"] for row in found if not row["agrees"]]:
        raise click.ClickException(f"{len(wrong)} of {len(found)} differ: {', '.join(wrong)}")


def compare_all(device: torch.device, steps: int, only: str) -> Iterator[Compared]:
    """The others are compared even if one fails."""
    dataset = open_dataset(None, size=(32, 32))
    for case in ("bundled model", *(case for case in every_family() if only in case)):
        try:
            if case == "bundled model":
                yield Compared(case, same_images(load_snapshot(str(PACKAGED_MODEL)).G, device))
            else:
                yield compare(case, config_of(case, dataset, steps), dataset, device, steps)
        except Exception as error:
            yield Compared(case, failures=(describe(error),))


def config_of(case: str, dataset: Dataset, steps: int) -> TrainConfig:
    """At full size from the first step on, with every stage within the steps, and a tenth of the learning rate."""
    cfg, settings = every_family()[case]
    settings = {name: value for name, value in settings.items() if not name.startswith(("grow_", "fade_"))}
    settings |= {"precision": "fp32", "kimg": 100.0}
    if presets()[cfg][1].grow_from:
        settings["grow_from"] = dataset.spec.height
    config = make_config(Run("equal", case, cfg, "critters", 0, 0.0, settings), dataset.spec)
    half = config.batch * (BEFORE + steps // 2) / 1000 if config.generator.learns_in_turn else 0.0
    d_lr = None if config.d_lr is None else config.d_lr / 10
    return dataclasses.replace(config, lr=config.lr / 10, d_lr=d_lr, stage_kimg=half)


def compare(case: str, config: TrainConfig, dataset: Dataset, device: torch.device, steps: int) -> Compared:
    expected, losses, gradients, failures = [], {}, {}, []
    with opened(config, dataset, CPU) as ours, opened(config, dataset, device) as following:
        for _ in range(BEFORE):
            losses_of(ours)
        before = copy.deepcopy(gather(ours.stateful))
        for i in range(steps):
            following.restore(copy.deepcopy(gather(ours.stateful)))
            expected.append(losses_of(ours))
            with use(compared_with(device)):
                actual = losses_of(following)
            losses |= {f"{name}, step {i}": error for name, error in differences(expected[i], actual).items()}
            gradients |= {f"{name}, step {i}": error for name, error in gradient_differences(ours, following).items()}
            if ours.streak or following.streak:
                failures.append(f"step {i} had a gradient that is not finite")
        levels = same_images(ours.recipe.ema.network, device)
    loss, gradient, alone = worst(losses), worst(gradients), []
    try:
        alone = train_alone(config, dataset, device, before, expected)
    except Exception as error:  # what was compared stays so
        failures.append(f"alone: {describe(error)}")
    return Compared(case, levels, losses[loss], gradients[gradient], (loss, gradient), alone, tuple(failures))


def train_alone(
    config: TrainConfig, dataset: Dataset, device: torch.device, state: State, expected: list[Losses]
) -> list[float]:
    """The largest difference of losses of each step."""
    with opened(config, dataset, device, is_cuda(device)) as engine, use(compared_with(device)):
        engine.restore(state)
        errors = (differences(losses, losses_of(engine)) for losses in expected)
        return [error[worst(error)] for error in errors]


@contextlib.contextmanager
def opened(config: TrainConfig, dataset: Dataset, device: torch.device, graphs: bool = False) -> Iterator[Engine[Gan]]:
    engine = make_engine(config, dataset, device, graphs=graphs)
    try:
        yield engine
    finally:
        engine.close()


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def losses_of(engine: Engine[Gan]) -> Losses:
    engine.step()
    return engine.means.take()


def differences(expected: Losses, actual: Losses) -> dict[str, float]:
    """By name; infinite for a loss that only one side has."""
    pairs = {name: (expected.get(name, math.inf), actual.get(name, math.inf)) for name in expected | actual}
    return {name: abs(b - a) / max(abs(a), 1.0) for name, (a, b) in pairs.items()}


def gradient_differences(expected: Engine[Gan], actual: Engine[Gan]) -> dict[str, float]:
    """By optimizer: the length of the difference of Adam's first moments, relative to their length."""
    found = {}
    for name, optimizer in expected.stateful.items():
        if name.startswith("optimizer.") and optimizer.state_dict()["state"]:  # else it has not stepped yet
            a, b = moments(optimizer), moments(actual.stateful[name])
            found[name.removeprefix("optimizer.")] = (
                (a - b).norm() / a.norm().clamp(min=1e-30)
            ).item()  # saturated losses have none
    return found


def moments(optimizer: Stateful) -> torch.Tensor:  # float64 [parameters]
    slots = optimizer.state_dict()["state"]
    return torch.cat([slots[i]["exp_avg"].detach().cpu().double().flatten() for i in sorted(slots)])


def worst(errors: dict[str, float]) -> str:
    return max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))


@torch.no_grad()
def same_images(G: Generator, device: torch.device) -> int:
    """The largest difference of 16 images of a generator that is on the CPU, in levels of 255."""
    index, sources = torch.arange(16), (Fakes(G, None, CPU), Fakes(copy.deepcopy(G).to(device), None, device))
    images = sources[0](index)
    with use(compared_with(device)):
        others = sources[1](index).cpu()
    for source in sources:
        source.check()
    return int((images.short() - others.short()).abs().max())


def compared_with(device: torch.device) -> str:
    """The implementation of the ops on the other side."""
    return "auto" if is_cuda(device) else "reference"


if __name__ == "__main__":
    main()
