"""Inception score (Salimans et al. 2016, "Improved Techniques for Training GANs", section 4):

IS = exp(E_x KL(p(y|x) || p(y))),   p(y) = E_x p(y|x)

p(y|x) is the softmax of the classifier's logits, 1008 of them. The score is the mean over ten parts of the pictures,
each with a p(y) of its own. Of a part only Σ p and Σ p log p are needed: no list of pictures is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inception_score(
    counts: Tensor,  # [splits] pictures in each part
    sums: Tensor,  # [splits, C] float64, Σ_x p(y|x)
    negentropies: Tensor,  # [splits] float64, Σ_x Σ_y p(y|x) log p(y|x)
) -> tuple[float, float]:  # mean over the parts, their standard deviation
    mean = sums / counts[:, None]
    divergence = negentropies / counts - torch.xlogy(mean, mean).sum(1)
    scores = divergence.exp()
    return float(scores.mean()), float(scores.std(correction=0))


def split_sums(
    logits: Tensor,  # [N, C]
    split: Tensor,  # [N] int64, which part each picture belongs to
    splits: int,
) -> tuple[Tensor, Tensor, Tensor]:  # counts, sums and negentropies of these pictures, as `inception_score` takes them
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    counts = torch.bincount(split, minlength=splits).double()
    sums = p.new_zeros(splits, p.shape[1]).index_add_(0, split, p)
    negentropies = p.new_zeros(splits).index_add_(0, split, (p * log_p).sum(1))
    return counts, sums, negentropies
