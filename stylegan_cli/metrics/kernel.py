"""Kernel distance: the squared maximum mean discrepancy between two sets of features. With Inception features it is KID
(Binkowski et al. 2018, "Demystifying MMD GANs", section 4; the unbiased estimator is Gretton et al. 2012, equation 3):

MMD²(X, Y) = 1/m(m-1) Σ_{i≠j} [k(x_i, x_j) + k(y_i, y_j)] - 2/m² Σ_{i,j} k(x_i, y_j),   k(x, y) = (xᵀy / D + 1)³

The distance is the mean over random subsets of m images each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..progress import Progress, silent, track
from .metric import INCEPTION, Metric, Settings, Value, full_and_50k

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors


def kernel_distance(
    real: Tensor,  # [N, D]
    fake: Tensor,  # [M, D]
    *,
    seed: int = 0,  # seed for choosing the subsets
    subsets: int = 100,  # number of subsets
    size: int = 1000,  # images per subset; at most N and M
    progress: Progress = silent,
) -> tuple[float, float]:
    """Return MMD² and its standard error, computed in float64.

    The subsets overlap, and are all the same if there are no more images than in a subset, so the variance between
    them says little about the error. The error is estimated within each subset by the jackknife (Efron and Stein
    1981), assuming that the variance decreases with the number n of images, which it does at least as fast:
    variance = mean of the subsets' jackknife variances * m / n + variance between subsets / number of subsets.
    """
    import torch

    rng = np.random.RandomState(seed)
    n, dim = min(len(real), len(fake)), real.shape[1]
    m = min(n, size)
    values, variances = [], []
    for _ in track(range(subsets), "subsets", progress):
        x = real[torch.from_numpy(rng.choice(len(real), m, replace=False))].double() / dim**0.5
        y = fake[torch.from_numpy(rng.choice(len(fake), m, replace=False))].double() / dim**0.5
        value, variance = _mmd2_and_variance(_kernel(x, x), _kernel(y, y), _kernel(x, y))
        values.append(value)
        variances.append(variance)
    variance = np.mean(variances) * m / n + np.var(values, ddof=1) / subsets
    return float(np.mean(values)), float(variance**0.5)


def _kernel(
    x: Tensor,  # [m, D], divided by √D
    y: Tensor,  # [m, D], likewise
) -> Tensor:  # [m, m]
    return x.new_ones(1, 1).addmm(x, y.T).pow_(3)


def _mmd2_and_variance(
    xx: Tensor,  # [m, m]
    yy: Tensor,  # [m, m]
    xy: Tensor,  # [m, m]
) -> tuple[float, float]:
    """Return MMD² and the jackknife estimate of its variance, excluding one pair (x_i, y_i) at a time."""
    m = len(xx)
    within = (xx + yy).fill_diagonal_(0)
    total = within.sum() / (m * (m - 1)) - 2 * xy.sum() / m**2
    within_excluding_i = within.sum() - 2 * within.sum(1)  # [m]
    between_excluding_i = xy.sum() - xy.sum(0) - xy.sum(1) + xy.diagonal()
    without = within_excluding_i / ((m - 1) * (m - 2)) - 2 * between_excluding_i / (m - 1) ** 2
    return float(total), float((m - 1) / m * (without - without.mean()).square().sum())


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    x, y = (side["features"].to(settings.device) for side in (reals, fakes))
    return [Value(*kernel_distance(x, y, seed=settings.seed, progress=settings.progress))]


METRICS = full_and_50k(
    Metric(
        "kid{features}{num}",
        "kernel distance to",
        INCEPTION,
        "features",
        _compute,
        alias="kid",
        max_reals=10**6,
        min_images=3,
    )
)
