"""The losses of both networks, as pure functions of the discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


def generator_logistic(
    fake: Tensor,  # [N, 1] logits of generated images
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(fake))): the non-saturating loss of Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake)


def generator_saturating(
    fake: Tensor,  # [N, 1] logits of generated images
) -> Tensor:  # [N, 1]
    """log(1 - sigmoid(D(fake))): the minimax game of Goodfellow et al. 2014, equation 1."""
    return -F.softplus(fake)


def discriminator_logistic(
    real: Tensor,  # [N, 1] logits of real images
    fake: Tensor,  # [N, 1] logits of generated images
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(real))) - log(1 - sigmoid(D(fake))): Goodfellow et al. 2014, equation 1, negated."""
    return F.softplus(-real) + F.softplus(fake)


def discriminator_hinge(
    real: Tensor,  # [N, 1] logits of real images
    fake: Tensor,  # [N, 1] logits of generated images
) -> Tensor:  # [N, 1]
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return F.relu(1 - real) + F.relu(1 + fake)


def generator_least_squares(
    fake: Tensor,  # [N, 1] outputs for generated images
) -> Tensor:  # [N, 1]
    """(D(fake) - c)^2 / 2 with c = 1 (Mao et al. 2017, equation 9)."""
    return (fake - 1).square() / 2


def discriminator_least_squares(
    real: Tensor,  # [N, 1] outputs for real images
    fake: Tensor,  # [N, 1] outputs for generated images
) -> Tensor:  # [N, 1]
    """(D(real) - b)^2 / 2 + (D(fake) - a)^2 / 2 with a = 0 and b = 1 (Mao et al. 2017, equation 9)."""
    return ((real - 1).square() + fake.square()) / 2


def generator_linear(
    fake: Tensor,  # [N, 1] outputs for generated images
) -> Tensor:  # [N, 1]
    """-D(fake): the generator's part of the hinge loss and of Wasserstein's."""
    return -fake


def discriminator_wasserstein(
    real: Tensor,  # [N, 1] outputs for real images
    fake: Tensor,  # [N, 1] outputs for generated images
) -> Tensor:  # [N, 1]
    """D(fake) - D(real), for D with a penalty that keeps its gradient norm near 1
    (Arjovsky et al. 2017, equation 2, negated)."""
    return fake - real


def generator_relativistic(
    fake: Tensor,  # [N, 1] outputs for generated images
    real: Tensor,  # [N, 1] outputs for real images
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(fake) - D(real))): each generated image has to look more real than the real image of its place
    (Jolicoeur-Martineau 2019, RpGAN; Huang et al. 2024, equation 2, with f(t) = -log(1 + exp(-t)))."""
    return F.softplus(real - fake)


def discriminator_relativistic(
    real: Tensor,  # [N, 1] outputs for real images
    fake: Tensor,  # [N, 1] outputs for generated images
) -> Tensor:  # [N, 1]
    """-log(sigmoid(D(real) - D(fake))): the same game, seen from the other side."""
    return F.softplus(fake - real)


def drift(
    real: Tensor,  # [N, 1] outputs for real images
) -> Tensor:  # [N, 1]
    """D(real)^2: keeps the outputs near 0 if the loss depends on differences only
    (Karras et al. 2018, appendix A.1)."""
    return real.square()


def classification(
    classes: Tensor,  # [N, c_dim] class logits of D
    c: Tensor,  # [N, c_dim] one-hot labels
) -> Tensor:  # [N]
    """-log P(class = c | image): the term that AC-GAN adds to both losses (Odena et al. 2017, equation 3, negated)."""
    return F.cross_entropy(classes, c, reduction="none")


def code_recovery(
    predicted: Tensor,  # [N, codes] numbers that D predicts
    codes: Tensor,  # [N, codes] numbers of z
) -> Tensor:  # [N]
    """-log N(codes; predicted, 1), without its constant: the lower bound of the mutual information between numbers and
    images that InfoGAN adds to both losses (Chen et al. 2016, equation 5). For classes it is `classification`."""
    return (predicted - codes).square().sum(1) / 2


@dataclass(frozen=True)
class Loss:
    """An objective: the loss of each network."""

    generator: Callable[..., Tensor]  # D(fake) [N, 1], with `paired` also D(real) -> [N, 1]
    discriminator: Callable[[Tensor, Tensor], Tensor]  # D(real), D(fake) [N, 1] -> [N, 1]
    boundary: float | None  # the output that separates real from fake; None: there is none
    paired: bool = False  # whether the loss of a generated image depends on D's output for a real one
    drifts: bool = False  # whether D's outputs need a drift penalty to stay near 0


LOSSES: dict[str, Loss] = {  # the names of choices.OBJECTIVES
    "logistic": Loss(generator_logistic, discriminator_logistic, 0.0),
    "saturating": Loss(generator_saturating, discriminator_logistic, 0.0),
    "hinge": Loss(generator_linear, discriminator_hinge, 0.0),
    "lsgan": Loss(generator_least_squares, discriminator_least_squares, 0.5),
    "wgan": Loss(generator_linear, discriminator_wasserstein, None, drifts=True),
    "relativistic": Loss(generator_relativistic, discriminator_relativistic, None, paired=True),
}
