"""How much of one set lies where the other one is, by balls around its features that reach to their k-th neighbors.

Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), k = 3:
precision = mean over fakes y of [y lies in the ball of any real x], recall = mean over reals x of [... of any fake y]

Density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", equations 3 and 4), k = 5:
density = mean over fakes y of (number of balls of reals that y lies in) / k
coverage = mean over reals x of [the ball of x holds any fake]

Exact, in float64, block by block: memory does not grow with the product of the sets. The edge belongs to the ball.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..progress import Progress, silent, track
from .metric import VGG, Compute, Metric, Output, Settings, Value, against_reals

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors

_BLOCK = 4096  # rows and columns of a block of distances: 128 MB
_SAME = 1e-13  # squared distances below this part of the squared lengths are rounding


def precision_recall(
    real: Tensor,  # [N, D]
    fake: Tensor,  # [M, D]
    k: int = 3,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> tuple[float, float]:
    of_reals, of_fakes = neighbor_radii(real, k, block, progress), neighbor_radii(fake, k, block, progress)
    precise, recalled = (x.new_zeros(len(x)).bool() for x in (fake, real))
    for rows, columns, d in _blocks(real, fake, block, progress):
        precise[columns] |= (d <= of_reals[rows, None]).any(0)
        recalled[rows] |= (d <= of_fakes[columns]).any(1)
    return _mean(precise), _mean(recalled)


def density_coverage(
    real: Tensor,  # [N, D]
    fake: Tensor,  # [M, D]
    k: int = 5,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> tuple[float, float]:
    radii = neighbor_radii(real, k, block, progress)
    balls = fake.new_zeros(len(fake)).long()  # that each fake lies in
    covered = real.new_zeros(len(real)).bool()
    for rows, columns, d in _blocks(real, fake, block, progress):
        inside = d <= radii[rows, None]
        balls[columns] += inside.sum(0)
        covered[rows] |= inside.any(1)
    return _mean(balls) / k, _mean(covered)


def neighbor_radii(
    x: Tensor,  # [N, D]
    k: int,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> Tensor:  # [N] float64, squared distance of each to its k-th nearest neighbor
    import torch

    nearest = x.new_full([len(x), k], torch.inf).double()
    for rows, columns, d in _blocks(x, x, block, progress):
        if rows == columns:
            d.fill_diagonal_(torch.inf)  # nobody is a neighbor of its own
        nearest[rows] = torch.cat([nearest[rows], d], 1).topk(k, dim=1, largest=False).values
    return nearest.amax(1)


def squared_distances(
    x: Tensor,  # [N, D]
    y: Tensor,  # [M, D]
) -> Tensor:  # [N, M] float64, exactly 0 between equals
    x, y = x.double(), y.double()
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    d = lengths.addmm(x, y.T, alpha=-2)
    return d.masked_fill_(d <= _SAME * lengths, 0)


def _blocks(
    x: Tensor,  # [N, D]
    y: Tensor,  # [M, D]
    block: int,
    progress: Progress,
) -> Iterator[tuple[slice, slice, Tensor]]:  # of x, of y, squared distances between them
    rows, columns = ([slice(i, min(i + block, len(z))) for i in range(0, len(z), block)] for z in (x, y))
    for r, c in track([(r, c) for r in rows for c in columns], "blocks", progress):
        yield r, c, squared_distances(x[r], y[c])


def _mean(x: Tensor) -> float:
    return float(x.double().mean())


def _precision_recall(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    x, y = (side["features"].to(settings.device) for side in (reals, fakes))
    return [Value(value) for value in precision_recall(x, y, progress=settings.progress)]


def _density_coverage(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    x, y = (side["features"].to(settings.device) for side in (reals, fakes))
    return [Value(value) for value in density_coverage(x, y, progress=settings.progress)]


def _metrics(
    template: str, about: str, compute: Compute, outputs: tuple[str, str], short: str, least: int
) -> tuple[Metric, Metric]:
    both = tuple(Output(ending, higher_is_better=True) for ending in outputs)
    return against_reals(Metric(template, about, VGG, "features", compute, both, short, reals=200_000, least=least))


PRECISION_RECALL = _metrics(
    "pr{features}{num}3",
    "improved precision and recall against",
    _precision_recall,
    ("_precision", "_recall"),
    short="pr",
    least=4,
)
DENSITY_COVERAGE = _metrics(
    "dc{features}{num}5", "density and coverage of", _density_coverage, ("_density", "_coverage"), short="dc", least=6
)
