"""Directions that need no labels: from the weights, and from samples of W."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import Generator
from ..snapshot import fingerprint
from .directions import Directions, sample_w, std_along, unit_vectors


def find_unlabeled(
    G: Generator,
    method: str,  # 'pca' or 'sefa'
    count: int,  # directions
    layers: Sequence[int],  # indices of w: SeFa looks at what they feed; the directions are meant for them
    num: int,  # seeds, from 0 on
    class_index: int | None = None,
    settings: dict | None = None,  # for the file
    model: str | None = None,  # fingerprint of G, where it is known
) -> Directions:
    """The strongest directions first. Raises SganError if more are asked for than w has dimensions, or than samples."""
    w = sample_w(G, range(num), class_index)
    most = w.shape[1] if method == "sefa" else min(w.shape[1], num - 1)
    if count > most:
        raise SganError(f"There are {most} directions at most, not {count}.", hint=f"Choose --count from 1 to {most}.")
    if method == "sefa":
        vectors, strength = sefa([G.style_weight(row) for row in G.layers if row.w_index in set(layers)], count)
        figures = {"eigenvalue": strength.tolist()}
    else:
        vectors, share = pca(w, count)
        figures = {"variance": share.tolist()}
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


def sefa(
    weights: Sequence[Tensor],  # [styles, w_dim] of each layer: what w is multiplied with
    count: int,
) -> tuple[Tensor, Tensor]:  # [count, w_dim] of unit length; [count] eigenvalues
    """The directions that change the layers' styles most: eigenvectors of AᵀA, where A has the rows of all layers.

    Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", equations 5 to 8.
    """
    A = torch.cat([weight.detach().double().cpu() for weight in weights])
    return _strongest(A.T @ A, count)


def pca(
    w: Tensor,  # [N, w_dim]
    count: int,
) -> tuple[Tensor, Tensor]:  # [count, w_dim] of unit length; [count] share of the variance
    """The principal components of W (Härkönen et al. 2020, "GANSpace: Discovering Interpretable GAN Controls", section
    2.2)."""
    covariance = torch.cov(w.double().T)
    vectors, variance = _strongest(covariance, count)
    return vectors, variance / covariance.trace()


def _strongest(
    matrix: Tensor,  # [w_dim, w_dim] float64, symmetric
    count: int,
) -> tuple[Tensor, Tensor]:  # eigenvectors as rows [count, w_dim]; eigenvalues [count]
    """The largest eigenvalues first. An eigenvector's sign is free: here its largest component is positive."""
    values, vectors = torch.linalg.eigh(matrix)
    vectors = vectors.T.flip(0)[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return unit_vectors(vectors * largest.sign()), values.flip(0)[:count]
