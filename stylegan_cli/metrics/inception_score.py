"""Inception score (Salimans et al. 2016, "Improved Techniques for Training GANs", section 4):

IS = exp(E_x KL(p(y|x) || p(y))),   p(y) = E_x p(y|x)

p(y|x) is the softmax of the classifier's 1008 logits. The score is the mean over ten splits of the images, each with
its own p(y). A split only needs Σ p and Σ p log p, so no logits are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .metric import CLASSES, Metric, Output, Settings, Value

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors


def inception_score(
    counts: Tensor,  # [splits] number of images
    sums: Tensor,  # [splits, C] float64, Σ_x p(y|x)
    negentropies: Tensor,  # [splits] float64, Σ_x Σ_y p(y|x) log p(y|x)
) -> tuple[float, float]:
    """Return the mean and the standard deviation over the splits."""
    mean = sums / counts[:, None]
    divergence = negentropies / counts - mean.xlogy(mean).sum(1)
    scores = divergence.exp()
    return float(scores.mean()), float(scores.std(correction=0))


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    return [Value(*inception_score(fakes["counts"], fakes["sums"], fakes["negentropies"]))]


METRICS = (
    Metric(
        "is{num}", "Inception score", CLASSES, "splits", _compute, (Output(higher_is_better=True),), "is", min_images=10
    ),
)
