"""Directions without labels: from the weights (SeFa), from samples of W (PCA), and from codes (InfoGAN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import Generator
from ..sampling.labels import Choice, class_labels
from ..sampling.latents import latents_from_seeds
from ..snapshot import fingerprint
from .directions import Directions, sample_w, std_along, unit_vectors


def find_unlabeled(
    G: Generator,
    method: str,  # 'pca' or 'sefa'
    count: int,  # number of directions
    layers: Sequence[int],  # w indices that the directions are for; SeFa uses the weights of these layers
    num: int,  # number of seeds, starting at 0
    class_index: Choice | None = None,
    settings: dict | None = None,  # saved in the file
    model: str | None = None,  # fingerprint of G, if known
) -> Directions:
    """Find directions, the strongest first. Raises SganError if there are fewer."""
    w = sample_w(G, range(num), class_index)
    limit = w.shape[1] if method == "sefa" else min(w.shape[1], num - 1)
    if count > limit:
        raise SganError(
            f"--count {count} is too large: there are {limit} directions.", hint=f"Use --count 1 to {limit}."
        )
    if method == "sefa":
        rows = [row for row in G.layers if row.w_index in set(layers)]
        # The numbers that move the image are not styles, and have other units.
        styled = [row for row in rows if row.kind != "input"] or rows
        vectors, eigenvalues = sefa([G.style_weight(row) for row in styled], count)
        figures = {"eigenvalue": eigenvalues.tolist()}
    else:
        vectors, variance = pca(w, count)
        figures = {"variance": variance.tolist()}
    return Directions(
        vectors=vectors,
        scales=std_along(w, vectors),
        names=[f"{method}{i}" for i in range(count)],
        layers=list(layers),
        method=method,
        model=model or fingerprint(G),
        figures=figures,
        settings={"num": num, "class": class_index, **(settings or {})},
    )


def find_codes(
    G: Generator,
    layers: Sequence[int],  # w indices that the directions are for
    num: int,  # number of seeds, starting at 0
    settings: dict | None = None,  # saved in the file
    model: str | None = None,  # fingerprint of G, if known
) -> Directions:
    """Find a direction for each value of the code, from the other values to it, and for each number of z that is a
    code. Raises SganError if the model has no codes.

    The figure `explained` is the share of the variance of w along the direction that follows the code.
    """
    codes = G.label_space.codes
    if not codes.values + codes.numbers:
        raise SganError("This model was trained without codes.", hint="Train one with them: sgan train --info 10")
    seeds = range(num)
    w = sample_w(G, seeds)
    numbers = latents_from_seeds(seeds, G.config.z_dim)[:, : codes.numbers].double()
    parts, names = [numbers], [f"z{i}" for i in range(codes.numbers)]
    if codes.values and (labels := class_labels(None, seeds, G.label_space)) is not None:
        parts, names = [labels.double(), numbers], [f"code={k}" for k in range(codes.values)] + names
    values = torch.cat(parts, 1)  # [N, K]
    values, centered = values - values.mean(0), w - w.mean(0)
    vectors = unit_vectors(values.T @ centered)  # of a value: the mean w with it, less the mean of all
    along = centered @ vectors.double().T
    explained = (values * along).mean(0).square() / (values.square().mean(0) * along.square().mean(0)).clamp_min(1e-30)
    return Directions(
        vectors=vectors,
        scales=std_along(w, vectors),
        names=names,
        layers=list(layers),
        method="codes",
        model=model or fingerprint(G),
        figures={"explained": explained.tolist()},
        settings={"num": num, **(settings or {})},
    )


def sefa(
    weights: Sequence[Tensor],  # [styles, w_dim] style weights of each layer
    count: int,
) -> tuple[Tensor, Tensor]:  # [count, w_dim] of unit length; [count] eigenvalues
    """Compute the directions that change the styles most: eigenvectors of AᵀA, where A stacks all layers' weights.

    Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", equations 5 to 8.
    """
    A = torch.cat([weight.detach().cpu().double() for weight in weights])
    return _strongest(A.T @ A, count)


def pca(
    w: Tensor,  # [N, w_dim]
    count: int,
) -> tuple[Tensor, Tensor]:  # [count, w_dim] of unit length; [count] fraction of the variance
    """Compute the principal components of W (Härkönen et al. 2020, "GANSpace: Discovering Interpretable GAN Controls",
    section 2.2)."""
    covariance = torch.cov(w.double().T)
    vectors, variance = _strongest(covariance, count)
    return vectors, variance / covariance.trace()


def _strongest(
    matrix: Tensor,  # [w_dim, w_dim] float64, symmetric
    count: int,
) -> tuple[Tensor, Tensor]:  # eigenvectors as rows [count, w_dim]; eigenvalues [count]
    """Compute the eigenvectors of the largest eigenvalues, with signs such that the largest component is positive."""
    values, vectors = torch.linalg.eigh(matrix)
    vectors = vectors.T.flip(0)[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return unit_vectors(vectors * largest.sign()), values.flip(0)[:count]
