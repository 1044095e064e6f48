"""What the networks minimise, as pure functions of the discriminator's logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def generator_logistic(
    fake: Tensor,  # [N, 1] logits of generated pictures
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(fake))): the non-saturating loss of Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake)


def discriminator_logistic(
    real: Tensor,  # [N, 1] logits of real pictures
    fake: Tensor,  # [N, 1] logits of generated pictures
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(real))) - log(1 - sigmoid(D(fake)))."""
    return F.softplus(-real) + F.softplus(fake)
