"""Fréchet distance between two normal distributions (Dowson and Landau 1982); of Inception features it is FID
(Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6):

d²((m, C), (n, D)) = |m - n|² + tr(C + D - 2 (C D)^½)

With C = L Lᵀ the eigenvalues of C D are those of the symmetric Lᵀ D L, and tr (C D)^½ is the sum of their roots: no
root of a matrix is taken. All is in float64. Between well conditioned covariances rounding changes the distance by
about 1e-12 of their traces. Eigenvalues below 1e-16 of the largest cannot be told from 0; each of them costs up to
1e-8 of the largest one's root.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(
    mean_a: Tensor,  # [D] float64
    cov_a: Tensor,  # [D, D] float64, symmetric
    mean_b: Tensor,  # [D]
    cov_b: Tensor,  # [D, D]
) -> float:
    """d² of the equation above; below 0 only by rounding."""
    # Of a singular matrix the factor is thin, which leaves out eigenvalues that are 0: none of them costs anything.
    factors = [(_cholesky(cov_a), cov_b), (_cholesky(cov_b), cov_a)]
    thin = [(_by_eigenvectors(cov), o) for (f, o), cov in zip(factors, (cov_a, cov_b), strict=True) if f is None]
    factor, other = min(thin, key=lambda pair: pair[0].shape[1]) if thin else factors[0]
    product = factor.T @ other @ factor
    roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt()
    apart = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()
    return float(apart - 2 * roots.sum())


def _cholesky(
    cov: Tensor,  # [D, D]
) -> Tensor | None:  # [D, D], L with L Lᵀ = cov; None of a singular matrix: of fewer pictures than features, say
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    return None if failed or pivots.min() <= _smallest(cov) * pivots.max() else factor


def _by_eigenvectors(
    cov: Tensor,  # [D, D]
) -> Tensor:  # [D, rank], L with L Lᵀ = cov
    values, vectors = torch.linalg.eigh(cov)
    kept = values > _smallest(cov) * values[-1]
    return vectors[:, kept] * values[kept].sqrt()


def _smallest(cov: Tensor) -> float:
    """What is not 0 in comparison with 1."""
    return len(cov) * torch.finfo(cov.dtype).eps
