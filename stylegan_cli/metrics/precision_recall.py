"""Overlap of two sets of features. Each feature has a ball, with the distance to its k-th nearest neighbor as radius.

Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), k = 3:
precision = mean over fakes y of [y is in the ball of any real x], recall = mean over reals x of [... of any fake y]

Density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", equations 3 and 4), k = 5:
density = mean over fakes y of (number of balls of reals that y is in) / k
coverage = mean over reals x of [the ball of x contains any fake]

Distances are exact, in float64, and computed in blocks, so that memory does not grow with the product of the numbers of
images. Balls include their surface.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..progress import Progress, silent, track
from .metric import VGG, Compute, Metric, Output, Settings, Value, full_and_50k

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors

_BLOCK = 4096  # rows and columns of a block of distances: 128 MB
_ROUNDING = 1e-13  # squared distances below this fraction of the squared lengths count as 0


def precision_recall(
    real: Tensor,  # [N, D]
    fake: Tensor,  # [M, D]
    k: int = 3,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> tuple[float, float]:
    """Return precision and recall."""
    real_radii, fake_radii = neighbor_radii(real, k, block, progress), neighbor_radii(fake, k, block, progress)
    is_precise, is_recalled = (x.new_zeros(len(x)).bool() for x in (fake, real))
    for rows, columns, d in _blocks(real, fake, block, progress):
        is_precise[columns] |= (d <= real_radii[rows, None]).any(0)
        is_recalled[rows] |= (d <= fake_radii[columns]).any(1)
    return _mean(is_precise), _mean(is_recalled)


def density_coverage(
    real: Tensor,  # [N, D]
    fake: Tensor,  # [M, D]
    k: int = 5,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> tuple[float, float]:
    """Return density and coverage."""
    radii = neighbor_radii(real, k, block, progress)
    num_balls = fake.new_zeros(len(fake)).long()  # number of balls that contain each fake
    is_covered = real.new_zeros(len(real)).bool()
    for rows, columns, d in _blocks(real, fake, block, progress):
        inside = d <= radii[rows, None]
        num_balls[columns] += inside.sum(0)
        is_covered[rows] |= inside.any(1)
    return _mean(num_balls) / k, _mean(is_covered)


def neighbor_radii(
    x: Tensor,  # [N, D]
    k: int,
    block: int = _BLOCK,
    progress: Progress = silent,
) -> Tensor:  # [N] float64
    """Return the squared distance of each to its k-th nearest neighbor."""
    import torch

    nearest = x.new_full([len(x), k], torch.inf).double()
    for rows, columns, d in _blocks(x, x, block, progress):
        if rows == columns:
            d.fill_diagonal_(torch.inf)  # exclude itself
        nearest[rows] = torch.cat([nearest[rows], d], 1).topk(k, dim=1, largest=False).values
    return nearest.amax(1)


def squared_distances(
    x: Tensor,  # [N, D]
    y: Tensor,  # [M, D]
) -> Tensor:  # [N, M] float64, exactly 0 between equal features
    x, y = x.double(), y.double()
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    d = lengths.addmm(x, y.T, alpha=-2)
    return d.masked_fill_(d <= _ROUNDING * lengths, 0)


def _blocks(
    x: Tensor,  # [N, D]
    y: Tensor,  # [M, D]
    block: int,
    progress: Progress,
) -> Iterator[tuple[slice, slice, Tensor]]:  # rows of x, rows of y, squared distances
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
    template: str, description: str, compute: Compute, suffixes: tuple[str, str], alias: str, min_images: int
) -> tuple[Metric, Metric]:
    outputs = tuple(Output(suffix, higher_is_better=True) for suffix in suffixes)
    return full_and_50k(
        Metric(
            template, description, VGG, "features", compute, outputs, alias, max_reals=200_000, min_images=min_images
        )
    )


PRECISION_RECALL = _metrics(
    "pr{features}{num}{k}3",
    "improved precision and recall against",
    _precision_recall,
    ("_precision", "_recall"),
    alias="pr",
    min_images=4,
)
DENSITY_COVERAGE = _metrics(
    "dc{features}{num}{k}5",
    "density and coverage of",
    _density_coverage,
    ("_density", "_coverage"),
    alias="dc",
    min_images=6,
)
