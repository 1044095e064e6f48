"""What the GPU path may cost: launches and bytes of synthesis and of the phases of training, registers and instructions
of the hot kernels. The table is budgets.json.

python tests/budgets.py             prints every figure beside its budget and its target
python tests/budgets.py --record    makes the present figures the budgets, and prints both
python tests/budgets.py --by-op 'training synthesis 256x256' 8    prints its operations, by the bytes that they move

Launches are counted on meta tensors (launches.py), instructions are read from SASS (sass.py); nothing is measured. A
budget is what CI allows, a target is what the design asks for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import sass
import torch
from launches import DEVICE, Count, count
from torch import Tensor

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.kernels.toolchain import find_nvcc
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.generator import Generator
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.optimizer import FusedAdam
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipe import Recipe
from stylegan_cli.training.recipes.gan import make_gan_phases
from stylegan_cli.training.recipes.gan_objective import GanBatch, Objective
from stylegan_cli.training.stats import Means

TABLE = Path(__file__).with_name("budgets.json")
SIZES = {256: 16384, 1024: 32768}  # size -> channel_base
BATCH = 16  # of a training step at 256²
Synthesize = Callable[[Tensor], object]  # ws [N, num_ws, w_dim] -> images


# ------------------------------------------------------------------------------------------------ synthesis


def generator(size: int) -> Generator:
    """A generator without values."""
    with DEVICE:
        config = make_config(size, 8).generator
        return build_generator(config).eval().requires_grad_(False).to(DEVICE)  # filters too


def frozen(G: Generator, implementation: str = "auto") -> Synthesize:
    """Synthesis as commands run it: constant noise, no gradients."""
    synthesize = functools.partial(frozen_synthesis(G), dtype=torch.float16)
    ws = torch.empty(1, G.num_ws, G.config.w_dim, device=DEVICE)
    count(lambda: synthesize(ws), implementation)  # prepares the weights
    return synthesize


def fused(G: Generator) -> Synthesize:
    """The same with each convolution in half precision as one kernel."""
    return frozen(G, "fused")


def training(G: Generator) -> Synthesize:
    """Synthesis as phases of training run it, with weights that need gradients and noise that was sampled before."""
    G.requires_grad_(True)

    def synthesize(ws: Tensor) -> object:
        noise = [torch.empty(len(ws), 1, row.height, row.width, device=DEVICE) for row in G.noise_layers]
        return G.synthesis(ws, noise=noise, dtype=torch.float16)

    return synthesize


def count_synthesis(
    prepare: Callable[[Generator], Synthesize],  # called once, which is not counted
    size: int,
    batch: int,
) -> Count:
    G = generator(size)
    with torch.set_grad_enabled(prepare is training):
        synthesize = prepare(G)
        ws = torch.empty(batch, G.num_ws, G.config.w_dim, device=DEVICE)
        return count(lambda: synthesize(ws), "fused" if prepare is fused else "auto")


# ------------------------------------------------------------------------------------------------- training


def make_config(size: int, batch: int):
    spec = DataSpec("none", "", 1, size, size, 3, size, size)
    config = make_train_config("auto", spec, batch=batch, channel_base=SIZES[size], aug="noaug")
    return dataclasses.replace(config, precision="fp16", batch_gpu=batch)


@functools.cache
def engine() -> tuple[Engine, GanBatch]:
    """The engine of a run at 256² on one GPU, with a batch, as if on a GPU."""
    config = make_config(256, BATCH)
    with DEVICE:
        G, D = build_generator(config.generator), build_discriminator(config.discriminator)
        G.to(DEVICE).requires_grad_(False), D.to(DEVICE).requires_grad_(False)  # filters are built on the CPU
        empty = torch.empty(BATCH, 0)
        batch = GanBatch(torch.empty(BATCH, 3, 256, 256), empty, empty, torch.empty(BATCH, dtype=torch.int64))
    recipe = Recipe(BATCH, BATCH, DEVICE, means=Means())
    recipe.networks = {"G": G, "D": D}
    recipe.phases = make_gan_phases(config, G, D, Objective(config, G, D, recipe.means))
    for optimizer in {phase.optimizer for phase in recipe.phases}:
        assert isinstance(optimizer, FusedAdam)
        optimizer.fused = optimizer.param_groups[0]["fused"] = True  # as on a GPU
    return Engine(recipe), batch


def count_phase(name: str) -> Count:
    """One update of a phase. The first one also allocates the moments, and is not counted."""
    training_engine, batch = engine()
    (phase,) = (phase for phase in training_engine.recipe.phases if phase.name == name)
    with mock.patch("torch.optim.adam._device_dtype_check_for_fused"):  # refuses meta tensors
        count(lambda: training_engine._run(phase, batch))
    return count(lambda: training_engine._run(phase, batch))


# ---------------------------------------------------------------------------------------------------- table

FORMS = {"frozen": frozen, "fused": fused, "training": training}
PHASES = ("G", "G path length", "D", "D R1")
# Other releases of PyTorch dispatch a few operations differently; other releases of ptxas make different code.
SLACK, KERNEL_SLACK = 1.02, 1.1


def quantities() -> list[str]:
    synthesis = [f"{form} synthesis {size}x{size}" for form in FORMS for size in SIZES]
    return synthesis + [f"phase {name} 256x256 batch {BATCH}" for name in PHASES]


def figures(quantity: str) -> dict[str, float]:
    """The figures of one quantity: launches, and megabytes. Those of synthesis at batch 0 do not depend on the batch:
    weights, and what prepares them."""
    kind, _, rest = quantity.partition(" ")
    if kind == "phase":
        counted = count_phase(rest.partition(" 256x")[0])
        return {"launches": counted.launches, "megabytes": megabytes(counted)}
    size = int(rest.rpartition("x")[2])
    one, eight = (count_synthesis(FORMS[kind], size, n) for n in (1, 8))
    fixed = round((8 * one.bytes - eight.bytes) / 7e6, 1)
    moved = {"megabytes at batch 1": megabytes(one), "megabytes at batch 8": megabytes(eight)}
    return {"launches": max(one.launches, eight.launches), "megabytes at batch 0": fixed, **moved}


def megabytes(counted: Count) -> float:
    return round(counted.bytes / 1e6, 1)


def kernel_figures() -> dict[str, dict[str, float]]:
    """The figures of the hot kernels, compiled in a minute; none without nvcc."""
    if find_nvcc() is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        compiled: dict[str, sass.Usage] = {}
        for path in sass.KERNELS:
            compiled |= sass.compile_for(path, sass.HOT_ARCH, Path(folder))
    return {f"kernel {name}": compiled[name].figures() for name in sass.HOT}


def load_table() -> dict[str, dict[str, dict[str, float]]]:
    """Quantity -> figure -> {'budget': the most that CI allows, 'target': what the design asks for}."""
    return json.loads(TABLE.read_text())


def excesses(
    quantity: str,
    found: dict[str, float],
    table: dict[str, dict[str, dict[str, float]]],
) -> list[str]:
    """A sentence for each figure above its budget."""
    budgets = {figure: table[quantity][figure]["budget"] for figure in found}
    slack = KERNEL_SLACK if quantity.startswith("kernel") else SLACK
    return [
        f"{quantity}: {value} {figure}, more than the budget of {budgets[figure]}"
        for figure, value in found.items()
        if value > budgets[figure] * slack
    ]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--by-op"]:
        print_by_op(arguments[1], int(arguments[2]) if arguments[2:] else 8)
        return
    table = load_table() if TABLE.exists() else {}
    found = {quantity: figures(quantity) for quantity in quantities()} | kernel_figures()
    for quantity, values in found.items():
        for figure, value in values.items():
            entry = table.setdefault(quantity, {}).setdefault(figure, {})
            print(f"{quantity:<62} {figure:<20} now {value:>8}", *(f"{k} {v:>8}" for k, v in entry.items()), sep="  ")
            if "--record" in arguments:
                entry["budget"] = value
    if "--record" in arguments:
        table = {quantity: table[quantity] for quantity in found}  # without kernels that are gone
        lines = json.dumps(table, indent=1)
        TABLE.write_text(re.sub(r"{\s+([^{}]+?)\s+}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", lines) + "\n")


def print_by_op(quantity: str, batch: int) -> None:
    kind, _, rest = quantity.partition(" ")
    if kind == "phase":
        print(count_phase(rest.partition(" 256x")[0]).table())
    else:
        print(count_synthesis(FORMS[kind], int(rest.rpartition("x")[2]), batch).table())


if __name__ == "__main__":
    main(sys.argv[1:])
