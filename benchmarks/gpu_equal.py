"""The same seed on the CPU and on a GPU: the losses of 20 training steps of every family, and images of its model.

python benchmarks/gpu_equal.py
python benchmarks/gpu_equal.py --device cpu          (without a GPU: the CPU beside PyTorch's own operations)

Both train in float32 without tensor cores, at 32 x 32 pixels on the bundled dataset. Rounding grows from step to step,
on one device too: Adam moves a weight by its whole learning rate, however small the gradient whose sign has changed. So
the GPU starts each step from the CPU's state. Then its losses must agree within 1e-3, relative to those above 1, and
the gradients of a network, as Adam averages them, within 5 % of their length: those of D follow an update of G. Images
of the CPU's moving average must agree within 1/255. Beside that it trains alone, with CUDA graphs, and the first step
whose losses differ by more is printed.
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

import click
import torch
from _results import command_line, is_cuda, machine, save_entry
from _training import Run, make_config
from measure_families import every_family

from stylegan_cli.data.dataset import Dataset, open_dataset
from stylegan_cli.metrics.stream import Fakes
from stylegan_cli.models.generator import Generator
from stylegan_cli.ops import tensor_cores, use
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.config import TrainConfig
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.gan import Gan, make_engine
from stylegan_cli.training.state import Stateful, gather

CPU = torch.device("cpu")
LOSS, GRADIENT, LEVELS = 1e-3, 5e-2, 1  # bounds; levels of 255
BUNDLED = Path(__file__).parents[1] / "stylegan_cli" / "assets" / "critters.safetensors"


@dataclasses.dataclass(frozen=True)
class Compared:
    """A family on both devices, or a model without training."""

    case: str
    levels: int  # the largest difference of images
    loss: float = 0.0  # the largest difference of losses, each step from the same state
    gradient: float = 0.0  # that of a network's gradients, relative to their length
    where: tuple[str, str] = ("", "")  # what has them: a loss and a network, and their steps
    alone: int | None = None  # the first step whose losses differ by more than the bound, if each trains alone

    @property
    def agrees(self) -> bool:
        return self.loss <= LOSS and self.gradient <= GRADIENT and self.levels <= LEVELS  # not-a-number does not

    def __str__(self) -> str:
        text = f"{self.case:<14} images within {self.levels}/255"
        if any(self.where):
            text += f"  losses {self.loss:.1e} ({self.where[0]})  gradients {self.gradient:.1e} ({self.where[1]})"
            text += "  alone: " + ("the same" if self.alone is None else f"other losses from step {self.alone}")
        return text if self.agrees else f"{text}  DIFFERS"


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
    dataset = open_dataset(None, size=(32, 32))
    yield Compared("bundled model", same_images(load_snapshot(str(BUNDLED)).G, device))
    for case, (cfg, settings) in every_family().items():
        if only in case:
            run = Run("equal", case, cfg, "critters", 0, 0.0, {**settings, "precision": "fp32", "kimg": 100.0})
            yield compare(case, make_config(run, dataset.spec), dataset, device, steps)


def compare(case: str, config: TrainConfig, dataset: Dataset, device: torch.device, steps: int) -> Compared:
    with contextlib.ExitStack() as stack:

        def engine(device: torch.device, graphs: bool = False) -> Engine[Gan]:
            made = make_engine(config, dataset, device, graphs=graphs)
            stack.callback(made.close)
            return made

        ours, following, alone = engine(CPU), engine(device), engine(device, is_cuda(device))
        losses, gradients, first = {}, {}, None
        for i in range(steps):
            following.restore(copy.deepcopy(gather(ours.stateful)))
            expected = losses_of(ours)
            with use(compared_with(device)):
                actual, apart = losses_of(following), losses_of(alone)
            losses |= {f"{name}, step {i}": error for name, error in differences(expected, actual).items()}
            gradients |= {f"{name}, step {i}": error for name, error in gradient_differences(ours, following).items()}
            if first is None and not all(error <= LOSS for error in differences(expected, apart).values()):
                first = i
        loss, gradient = worst(losses), worst(gradients)
        levels = same_images(ours.recipe.ema.network, device)
        return Compared(case, levels, losses[loss], gradients[gradient], (loss, gradient), first)


def losses_of(engine: Engine[Gan]) -> dict[str, float]:
    engine.step()
    return engine.means.take()


def differences(expected: dict[str, float], actual: dict[str, float]) -> dict[str, float]:
    """By name; infinite for a loss that only one side has."""
    pairs = {name: (expected.get(name, math.inf), actual.get(name, math.inf)) for name in expected | actual}
    return {name: abs(b - a) / max(abs(a), 1.0) for name, (a, b) in pairs.items()}


def gradient_differences(expected: Engine[Gan], actual: Engine[Gan]) -> dict[str, float]:
    """By optimizer: the length of the difference of Adam's first moments, relative to their length."""
    found = {}
    for name, optimizer in expected.stateful.items():
        if name.startswith("optimizer.") and optimizer.state_dict()["state"]:  # else it has not stepped yet
            a, b = moments(optimizer), moments(actual.stateful[name])
            found[name.removeprefix("optimizer.")] = ((a - b).norm() / a.norm()).item()
    return found


def moments(optimizer: Stateful) -> torch.Tensor:  # float64 [parameters]
    slots = optimizer.state_dict()["state"]
    return torch.cat([slots[i]["exp_avg"].detach().cpu().double().flatten() for i in sorted(slots)])


def worst(errors: dict[str, float]) -> str:
    return max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))


@torch.no_grad()
def same_images(G: Generator, device: torch.device) -> int:
    """The largest difference of 16 images of a generator that is on the CPU, in levels of 255."""
    index, there = torch.arange(16), copy.deepcopy(G).to(device)
    images = Fakes(G, None, CPU)(index)
    with use(compared_with(device)):
        others = Fakes(there, None, device)(index).cpu()
    return int((images.short() - others.short()).abs().max())


def compared_with(device: torch.device) -> str:
    """The implementation of the ops on the other side."""
    return "auto" if is_cuda(device) else "reference"


if __name__ == "__main__":
    main()
