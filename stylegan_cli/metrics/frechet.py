"""Fréchet distance between two normal distributions (Dowson and Landau 1982); of Inception features it is FID
(Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6):

d²((m, C), (n, D)) = |m - n|² + tr(C + D - 2 (C D)^½)

With C = L Lᵀ the eigenvalues of C D are those of the symmetric Lᵀ D L, and tr (C D)^½ is the sum of their roots: no
root of a matrix is taken. All is in float64. Between well conditioned covariances rounding changes the distance by
about 1e-12 of their traces. Eigenvalues below 1e-16 of the largest cannot be told from 0; each of them costs up to
1e-8 of the largest one's root.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .metric import ALL, INCEPTION, Metric, Settings, Value, against_reals

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors


def frechet_distance(
    mean_a: Tensor,  # [D] float64
    cov_a: Tensor,  # [D, D] float64, symmetric
    mean_b: Tensor,  # [D]
    cov_b: Tensor,  # [D, D]
) -> float:
    """d² of the equation above; below 0 only by rounding."""
    import torch

    # The factor with fewer columns: what a singular matrix leaves out costs nothing.
    factor, other = min((_factor(cov_a), cov_b), (_factor(cov_b), cov_a), key=lambda pair: pair[0].shape[1])
    product = factor.T @ other @ factor
    roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt()
    apart = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()
    return float(apart - 2 * roots.sum())


def _factor(
    cov: Tensor,  # [D, D]
) -> Tensor:  # [D, rank], L with L Lᵀ = cov; thin of a singular matrix: of fewer images than features, say
    import torch

    smallest = len(cov) * sys.float_info.epsilon  # that is not 0 in comparison with 1
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if not failed and pivots.min() > smallest * pivots.max():
        return factor
    values, vectors = torch.linalg.eigh(cov)
    kept = values > smallest * values[-1]
    return vectors[:, kept] * values[kept].sqrt()


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    return [Value(frechet_distance(reals["mean"], reals["cov"], fakes["mean"], fakes["cov"]))]


def _note(metric: Metric) -> str | None:
    size = metric.features.size
    if metric.num > size:
        return None
    few = f"{metric.num} images for {size} features"
    return f"{metric.name()}: with {few} it is far too high; compare it only with others of as few."


METRICS = against_reals(
    Metric(
        "fid{features}{num}", "Fréchet distance to", INCEPTION, "moments", _compute, short="fid", reals=ALL, note=_note
    )
)
