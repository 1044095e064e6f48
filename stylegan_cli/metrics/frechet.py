"""Fréchet distance between two normal distributions (Dowson and Landau 1982). With Inception features it is FID
(Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6):

d²((m, C), (n, D)) = |m - n|² + tr(C + D - 2 (C D)^½)

With C = L Lᵀ, the eigenvalues of C D are those of the symmetric Lᵀ D L, and tr (C D)^½ is the sum of their square
roots, so no matrix square root is needed. Everything is in float64. For well-conditioned covariances, the rounding
error is about 1e-12 of their traces; a distance below that is 0. Eigenvalues below 1e-16 of the largest are
indistinguishable from 0; each of them adds an error of up to 1e-8 of the square root of the largest.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .metric import ALL_REALS, INCEPTION, Metric, Settings, Value, full_and_50k

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors


_ROUNDING = 1e-12  # of the sum of the variances


def frechet_distance(
    mean_a: Tensor,  # [D] float64
    cov_a: Tensor,  # [D, D] float64, symmetric
    mean_b: Tensor,  # [D]
    cov_b: Tensor,  # [D, D]
) -> float:
    """Compute d² of the equation above; 0 if it is below its rounding error, so never negative."""
    import torch

    # The factor with fewer columns, if one covariance is singular, makes the smaller product.
    factor, other = min((_factor(cov_a), cov_b), (_factor(cov_b), cov_a), key=lambda pair: pair[0].shape[1])
    product = factor.T @ other @ factor
    roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt()
    traces = cov_a.trace() + cov_b.trace()
    distance = float((mean_a - mean_b).square().sum() + traces - 2 * roots.sum())
    return distance if distance > _ROUNDING * float(traces) else 0.0


def _factor(
    cov: Tensor,  # [D, D]
) -> Tensor:  # [D, rank]: L with L Lᵀ = cov; rank < D if cov is singular, for example with fewer images than features
    import torch

    tolerance = len(cov) * sys.float_info.epsilon
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if not failed and pivots.min() > tolerance * pivots.max():
        return factor
    values, vectors = torch.linalg.eigh(cov)
    nonzero = values > tolerance * values[-1]
    return vectors[:, nonzero] * values[nonzero].sqrt()


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    return [Value(frechet_distance(reals["mean"], reals["cov"], fakes["mean"], fakes["cov"]))]


def _note(metric: Metric, values: list[Value]) -> str | None:
    size = metric.features.size
    if values[0].value == 0:
        return f"{metric.name()} is 0 within rounding, {_ROUNDING:g} of the variance of the features."
    if metric.num > size:
        return None
    return (
        f"{metric.name()} is far too high with only {metric.num} images for {size} features. "
        "Compare it only with values measured with as few."
    )


METRICS = full_and_50k(
    Metric(
        "fid{features}{num}",
        "Fréchet distance to",
        INCEPTION,
        "moments",
        _compute,
        alias="fid",
        max_reals=ALL_REALS,
        note=_note,
    )
)
