"""Linear classifiers in W, and directions from them that leave other labels alone.

All is done in white coordinates, z = Σ^(-1/2) (w - mean), in which every direction of W varies alike: there the length
of a step is its size in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_FLOOR = 1e-3  # of the mean variance: directions in which w hardly varies are not blown up beyond this
_EVERY = 10  # one seed of so many is held out


@dataclass(frozen=True)
class White:
    """White coordinates of W."""

    mean: Tensor  # [w_dim] float64
    root: Tensor  # [w_dim, w_dim] float64, Σ^(1/2)
    inverse: Tensor  # [w_dim, w_dim] float64, Σ^(-1/2)

    def of(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:  # [N, w_dim] float64
        return (w.double() - self.mean) @ self.inverse

    def back(
        self,
        z: Tensor,  # [K, w_dim] directions
    ) -> Tensor:  # [K, w_dim] directions in W, not of unit length
        return z @ self.root


def whiten(
    w: Tensor,  # [N, w_dim]
) -> White:
    w = w.double()
    values, vectors = torch.linalg.eigh(torch.cov(w.T))
    values = values.clamp_min(_FLOOR * values.mean())
    root, inverse = (vectors @ torch.diag(v) @ vectors.T for v in (values.sqrt(), values.rsqrt()))
    return White(w.mean(0), root, inverse)


def logistic(
    z: Tensor,  # [N, D] float64
    targets: Tensor,  # [N, K] float64 in 0 ... 1: labels, or how sure they are
    decay: float | None = None,  # weight of ½ |normal|² beside the mean loss of a seed; None: 10 / N
) -> Tensor:  # [K, D] normals towards each label: log-odds for each step of 1
    """Logistic regression for each label by itself, by L-BFGS to its optimum."""
    from scipy.optimize import minimize
    from scipy.special import expit

    decay = 10 / len(z) if decay is None else decay
    t = targets.numpy()
    x = np.column_stack([z, np.ones(len(z))])  # the last column is for the bias, which does not decay
    decays = np.append(np.full(z.shape[1], decay), 0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:  # and its gradient
        weights = weights.reshape(t.shape[1], -1)
        scores = x @ weights.T
        value = (np.logaddexp(0, scores) - t * scores).sum() / len(x) + (decays * weights**2).sum() / 2
        return value, ((expit(scores) - t).T @ x / len(x) + decays * weights).ravel()

    start = np.zeros(t.shape[1] * x.shape[1])
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-8}).x
    return torch.from_numpy(weights.reshape(t.shape[1], -1)[:, :-1])


def orthogonalize(
    normal: Tensor,  # [D]
    others: Tensor,  # [M, D] normals of what shall stay
    weight: float,
) -> Tensor:  # [D]
    """A direction u that raises one log-odds and leaves the others alone.

    It minimizes |u|²/2 - normal·u + weight/2 Σ (other·u)². With a large weight that is the projection of the normal
    onto what is orthogonal to all others: conditional manipulation (Shen et al. 2020, "Interpreting the Latent Space of
    GANs for Semantic Face Editing", section 2.3). But dozens of others fill much of W, many with normals that are
    little but chance, and not much would remain; with a finite weight each counts as much as W decides it.
    """
    D = len(normal)
    return torch.linalg.solve(torch.eye(D, dtype=normal.dtype) + weight * others.T @ others, normal)


def held_out(
    n: int,
) -> Tensor:  # [N] bool
    """Every tenth seed: what a classifier is measured on."""
    return torch.arange(n) % _EVERY == _EVERY - 1


def auc(
    scores: Tensor,  # [N]
    positive: Tensor,  # [N] bool
) -> float:
    """How many of all pairs of a positive and a negative are in order, ties counted half; 0.5 where one kind lacks."""
    from scipy.stats import mannwhitneyu

    p = int(positive.sum())
    if p in (0, len(positive)):
        return 0.5
    u = mannwhitneyu(scores[positive].numpy(), scores[~positive].numpy(), method="asymptotic").statistic
    return float(u) / (p * (len(positive) - p))
