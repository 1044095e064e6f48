"""Whether what is dragged arrives, and what else a drag changes.

python benchmarks/measure_dragging.py --out benchmarks/results/2026-11-27-cpu-dragging.json

One handle in each image of a seed, at one of the fifth of pixels with the largest gradients, which a point can follow;
its target is 4 to 8 pixels away in any direction, also where no image of the model has such content. A drag judges
itself: whether the handle's feature, as it tracks it, ends within a pixel of the target. The features of other layers
and the 3x3 pixels around the handle judge it independently, in two ways:

- tracked in the same way, by them in place of the dragged layer, the handle ends within a pixel of the target. Their
  appearance changes too, so that a tracker easily loses the point;
- what is now at the target is more like what was at the handle than what is now at the handle's place. Without any
  change that is never so; with another seed's image it is chance.

The mask lets move what is within 6 pixels of the way from the handle to the target.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from _results import command_line, machine, save_entry
from torch import Tensor
from torch.nn import functional as F

from stylegan_cli.cli.progress import bar
from stylegan_cli.inversion.dragging import feature_layer, sample, square
from stylegan_cli.inversion.dragging import track as track_points
from stylegan_cli.progress import Progress, track
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.sampling.segmenter import feature_layers, inner
from stylegan_cli.session import Session

EDGE = 4  # pixels between points and the edges of the image
REACH = 6  # pixels that may move on both sides of the way
PIXELS = "pixels"


@dataclass
class Case:
    seed: int
    handle: tuple[float, float]
    target: tuple[float, float]

    @property
    def points(self) -> list[tuple[float, float, float, float]]:
        return [(*self.handle, *self.target)]


@dataclass
class Figures:
    """One number for each drag."""

    arrived: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)  # mean absolute, outside of the mask, of values from 0 to 1
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0
    nearer: dict[str, list[float]] = field(default_factory=dict)  # by layer, or PIXELS
    tracked: dict[str, list[float]] = field(default_factory=dict)


@click.command()
@click.option("--num", default=50, show_default=True, help="Number of seeds.")
@click.option("--model", default=str(PACKAGED_MODEL), help="Model. Default: the bundled one.")
@click.option("--lr", type=float, help="Learning rate. Default: that of `sgan edit drag`.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
def main(num: int, model: str, lr: float | None, out: Path | None) -> None:
    torch.set_num_threads(1)
    session = Session(model)
    with bar(quiet=False) as progress:
        cases = [case_of(session, seed) for seed in range(num)]
        free, masked = (run(session, cases, used, lr, progress) for used in (False, True))
        chance = by_chance(session, cases)
    rows = rows_of(session, free, masked, chance)
    for row in rows:
        print(row["case"], {name: f"{ratio:.2f}" for name, ratio in row["ratio"].items()})
    if out:
        about = {"model": session.fingerprint, "seeds": num}
        save_entry(out, {"command": command_line(sys.argv), "machine": machine(session.device), **about, "rows": rows})


def case_of(session: Session, seed: int) -> Case:
    """A handle and its target."""
    x = session.generate(seeds=[seed]).images[0].float().mean(0)
    height, width = x.shape
    slope = torch.zeros_like(x)
    slope[1:-1, 1:-1] = torch.hypot(x[1:-1, 2:] - x[1:-1, :-2], x[2:, 1:-1] - x[:-2, 1:-1])
    within = torch.zeros_like(slope, dtype=torch.bool)
    within[EDGE:-EDGE, EDGE:-EDGE] = True
    places = (within & (slope >= slope[within].quantile(0.8))).nonzero()
    for attempt in range(1000):
        numbers = counter.uniform(seed, f"drag.{attempt}", torch.arange(3)).flatten().tolist()
        y, x = (places[int(numbers[0] * len(places))] + 0.5).tolist()
        angle, length = 2 * math.pi * numbers[1], 4 + 4 * numbers[2]
        to_x, to_y = x + length * math.cos(angle), y + length * math.sin(angle)
        if EDGE <= to_x <= width - EDGE and EDGE <= to_y <= height - EDGE:
            return Case(seed, (x, y), (to_x, to_y))
    raise RuntimeError("the image is too small")


def run(session: Session, cases: list[Case], use_mask: bool, lr: float | None, progress: Progress) -> Figures:
    found = Figures()
    for case in track(cases, "drags with a mask" if use_mask else "drags", progress):
        mask = way_mask(case, session.G.config.height, session.G.config.width)
        drag = session.prepare_drag(start=case.seed, points=case.points, mask=mask if use_mask else None, lr=lr)
        start = time.process_time()
        steps = sum(1 for _ in drag.steps())
        found.seconds += time.process_time() - start
        found.steps.append(steps)
        found.arrived.append(float(drag.state.distance[0] <= 1))
        before, after = (drag.image(step.ws).float() / 255 for step in (drag.path[0], drag.state))
        found.change.append((after - before).abs().mean(0)[~mask].mean().item())
        for name, is_nearer in nearer(session, case, drag.path[0].ws, drag.state.ws).items():
            found.nearer.setdefault(name, []).append(is_nearer)
        for name, is_there in tracked(session, case, [step.ws for step in drag.path]).items():
            found.tracked.setdefault(name, []).append(is_there)
    return found


def by_chance(session: Session, cases: list[Case]) -> dict[str, float]:
    """The shares with the image of another seed in place of the dragged one."""
    ws = map_seeds(session.G, range(2 * len(cases)), SamplingOptions()).clone().split(1)
    pairs = zip(cases, ws[: len(cases)], ws[len(cases) :], strict=True)
    found = [nearer(session, case, before, after) for case, before, after in pairs]
    return {name: statistics.fmean(f[name] for f in found) for name in found[0]}


def way_mask(case: Case, height: int, width: int) -> Tensor:  # bool [H, W]
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places, a, b = torch.stack([xs, ys], 2), torch.tensor(case.handle), torch.tensor(case.target)
    share = ((places - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)
    return (places - a - share[..., None] * (b - a)).norm(dim=2) <= REACH


@torch.no_grad()
def nearer(session: Session, case: Case, before: Tensor, after: Tensor) -> dict[str, float]:
    """Whether what is at the target is more like what was at the handle than what is where the handle was."""
    old, new = (all_features(session, ws) for ws in (before, after))
    size = session.G.config.height, session.G.config.width
    handle, target = (torch.tensor([[point]]) for point in (case.handle, case.target))
    found = {}
    for name in old:
        wanted = sample(old[name], handle, size)
        at_target, at_handle = ((sample(new[name], point, size) - wanted).abs().sum() for point in (target, handle))
        found[name] = float(at_target < at_handle)
    return found


@torch.no_grad()
def tracked(session: Session, case: Case, path: list[Tensor]) -> dict[str, float]:
    """Whether a handle ends within a pixel of its target, tracked by the features of each layer."""
    size = session.G.config.height, session.G.config.width
    search, target = square(2, 0.5), torch.tensor([case.target])
    first = all_features(session, path[0])
    wanted = {name: sample(x, torch.tensor([[case.handle]]), size) for name, x in first.items()}
    points = {name: torch.tensor([case.handle]) for name in first}
    for ws in path[1:]:
        for name, x in all_features(session, ws).items():
            points[name] = track_points(x, wanted[name], points[name], search, size)
    return {name: float((point - target).norm() <= 1) for name, point in points.items()}


def all_features(session: Session, ws: Tensor) -> dict[str, Tensor]:  # [1, C, h, w] each
    G = session.G
    rows, maps = {row.name: row for row in feature_layers(G.synthesis)}, {}
    image = G.synthesis(ws, features={name: lambda x, n=name: maps.update({n: inner(x, rows[n])}) for name in rows})
    around = F.unfold(F.pad(image, (1, 1, 1, 1), "replicate"), 3)
    return {**maps, PIXELS: around.unflatten(2, image.shape[2:])}


def rows_of(session: Session, free: Figures, masked: Figures, chance: dict[str, float]) -> list[dict]:
    own, rows = feature_layer(session.G), {row.name: row for row in feature_layers(session.G.synthesis)}
    share, arrived = statistics.fmean(free.arrived), statistics.fmean(masked.arrived)
    ms = 1000 * free.seconds / max(sum(free.steps), 1)
    steps = statistics.fmean(free.steps)
    outside, held = statistics.fmean(free.change), statistics.fmean(masked.change)
    result = [
        row("within 1 pixel of the target, as tracked", share, {"with a mask": share / arrived} if arrived else {}),
        row("change outside of the mask, values from 0 to 1", held, {"without the mask": outside / held}, "{:.3f}"),
        {**row("a step", ms, {}, f"{{:.1f}} ms, {steps:.0f} steps"), "figures": {"ms": ms, "steps": steps}},
    ]
    for name, values in free.nearer.items():
        what = "the pixels around" if name == PIXELS else f"features of {rows[name].path}"
        what += ", which is dragged" if name == own.name else ""
        value, by_luck = statistics.fmean(values), chance[name]
        ratio = {"another seed": value / by_luck} if value and by_luck else {}
        result.append(row(f"more like the handle at the target than at its place, by {what}", value, ratio))
        result[-1]["figures"] |= {"chance": by_luck, "masked": statistics.fmean(masked.nearer[name])}
        if name != own.name:
            there = statistics.fmean(free.tracked[name])
            ratio = {"tracked by the dragged layer": there / share} if there and share else {}
            result.append(row(f"within 1 pixel of the target, tracked by {what}", there, ratio))
    result[0]["figures"]["masked"], result[1]["figures"]["without"] = arrived, outside
    return result


def row(what: str, value: float, ratio: dict[str, float], format: str = "{:.0%}") -> dict:
    """A row of a results file."""
    return {
        "op": "dragging",
        "dtype": "float32",
        "case": f"{what}: {format.format(value)}",
        "ratio": ratio,
        "figures": {"value": value},
        "wrong": [],
        "failed": [],
    }


if __name__ == "__main__":
    main()
