"""Linear classifiers in W, and directions derived from them that preserve other labels.

Everything is computed in whitened coordinates, z = Σ^(-1/2) (w - mean), in which all directions of W have the same
variance: the length of a step is its size in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MIN_VARIANCE = 1e-3  # relative to the mean: limits the amplification of directions in which w hardly varies
_HOLDOUT_INTERVAL = 10  # one seed out of this many is held out


@dataclass(frozen=True)
class Whitening:
    """Whitened coordinates of W."""

    mean: Tensor  # [w_dim] float64
    root: Tensor  # [w_dim, w_dim] float64, Σ^(1/2)
    inverse: Tensor  # [w_dim, w_dim] float64, Σ^(-1/2)

    def to_white(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, w_dim] float64
        return (w.double() - self.mean) @ self.inverse

    def directions_to_w(
        self,
        z: Tensor,  # [K, w_dim]
    ) -> Tensor:  # [K, w_dim], not normalized
        return z @ self.root


def fit_whitening(
    w: Tensor,  # [N, w_dim]
) -> Whitening:
    w = w.double()
    values, vectors = torch.linalg.eigh(torch.cov(w.T))
    values = values.clamp_min(_MIN_VARIANCE * values.mean())
    root, inverse = (vectors @ torch.diag(v) @ vectors.T for v in (values.sqrt(), values.rsqrt()))
    return Whitening(w.mean(0), root, inverse)


def fit_logistic(
    z: Tensor,  # [N, D] float64
    targets: Tensor,  # [N, K] float64 in [0, 1]: labels or their probabilities
    decay: float | None = None,  # weight of ½ |normal|² relative to the mean loss; None: 10 / N
) -> Tensor:  # [K, D] normals toward each label: change of the log-odds per unit step
    """Fit independent logistic regressions for all labels with L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import expit

    decay = 10 / len(z) if decay is None else decay
    t = targets.numpy()
    x = np.column_stack([z, np.ones(len(z))])  # the last weight is the bias, which is not regularized
    decays = np.append(np.full(z.shape[1], decay), 0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:  # and gradient
        weights = weights.reshape(t.shape[1], -1)
        scores = x @ weights.T
        value = (np.logaddexp(0, scores) - t * scores).sum() / len(x) + (decays * weights**2).sum() / 2
        return value, ((expit(scores) - t).T @ x / len(x) + decays * weights).ravel()

    start = np.zeros(t.shape[1] * x.shape[1])
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-8}).x
    return torch.from_numpy(weights.reshape(t.shape[1], -1)[:, :-1])


def orthogonalize(
    normal: Tensor,  # [D]
    others: Tensor,  # [M, D] normals of the labels to preserve
    weight: float,
) -> Tensor:  # [D]
    """Return a direction u that increases one log-odds and preserves the others.

    It minimizes |u|²/2 - normal·u + weight/2 Σ (other·u)². With a large weight this is the projection of the normal
    onto the orthogonal complement of the others: conditional manipulation (Shen et al. 2020, "Interpreting the Latent
    Space of GANs for Semantic Face Editing", section 2.3). But dozens of other labels span much of W, many of them with
    mostly random normals, and little would remain; with a finite weight a label counts by how strongly it depends on W.
    """
    D = len(normal)
    return torch.linalg.solve(torch.eye(D, dtype=normal.dtype) + weight * others.T @ others, normal)


def holdout_mask(
    n: int,
) -> Tensor:  # [N] bool
    """Mark every tenth seed, for the evaluation of classifiers."""
    return torch.arange(n) % _HOLDOUT_INTERVAL == _HOLDOUT_INTERVAL - 1


def auc(
    scores: Tensor,  # [N]
    is_positive: Tensor,  # [N] bool
) -> float:
    """Compute the area under the ROC curve: the fraction of pairs of a positive and a negative that are in order, with
    ties counted as half. 0.5 if there are no positives or no negatives."""
    from scipy.stats import mannwhitneyu

    positive, negative = scores[is_positive].numpy(), scores[~is_positive].numpy()
    if not len(positive) or not len(negative):
        return 0.5
    u = mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(u) / (len(positive) * len(negative))
