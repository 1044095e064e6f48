"""Guides: attribute critics that add a term to the losses, so that generated images get an attribute that no image of
the dataset needs to have.

The generator's loss gets guide_weight * term(C(fake)), and the discriminator's, if asked,
guide_discriminator * reward(C(fake)) * (generator's loss of D(fake)): images that the critic likes may pass for real.
With least squares, C is rescaled to 0 without and 1 with the attribute, f(u) = min(u, 1), the term is
(f(u) - 1)^2 / 2 and the reward f(u), at least 0. Otherwise the term is softplus(-C) = -log P(attribute), and the reward
P(attribute).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache import sha256_of
from ..data.dataset import DataSpec
from ..errors import MisuseError, SganError, quote
from ..sampling.critics import CRITIC_FILE, Critic, load_critic
from .config import GuideConfig

# Of the thesis' method with least squares: losses (1, 1, 0.1) of D and (2, 30) of G, over twice its (D - 1)^2 / 2.
DEFAULT_WEIGHTS = {"lsgan": 15.0}
DEFAULT_WEIGHT = 1.0


class Guide:
    """A critic with its weights."""

    def __init__(
        self,
        config: GuideConfig,
        critic: Critic,
        least_squares: bool,  # whether the objective is that of least squares
    ):
        self.config, self.critic, self.least_squares = config, critic, least_squares

    def term(
        self,
        images: Tensor,  # [N, C, H, W] generated images, as D sees them
    ) -> Tensor:  # [N, 1], before the weight
        """The term of the generator's loss."""
        logits = self.critic(images)
        loss = (_bounded(self.critic.score(logits)) - 1).square() / 2 if self.least_squares else F.softplus(-logits)
        return loss[:, None]

    @torch.no_grad()
    def reward(
        self,
        images: Tensor,  # [N, C, H, W] generated images, as D sees them
    ) -> Tensor:  # [N, 1], 0 to 1
        """How much an image may pass for a real one because it has the attribute."""
        logits = self.critic(images)
        score = _bounded(self.critic.score(logits)).clamp_min(0) if self.least_squares else logits.sigmoid()
        return score[:, None]


def load_guides(
    configs: Sequence[GuideConfig],
    loss: str,  # name of the objective
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> list[Guide]:
    """Load the critics of a run. Raises SganError as `check_files` does."""
    check_files(configs)
    return [Guide(config, load_critic(config.path, device).to(dtype), loss == "lsgan") for config in configs]


def check_files(
    configs: Sequence[GuideConfig],
) -> None:
    """Raise SganError if the file of a critic is missing, or is not the one that the run was started with."""
    for config in configs:
        hint = f"Restore it: the run cannot continue without its guide {config.name}."
        if not os.path.isfile(config.path):
            raise SganError(f"The critic {config.path} of this run does not exist.", hint=hint)
        if sha256_of(Path(config.path)) != config.content_hash:
            raise SganError(f"The critic {config.path} has changed since this run was started.", hint=hint)


def plan_guides(
    paths: Sequence[str],  # of critics
    weights: Sequence[float],  # one for each, one for all, or none: the default
    discriminator_weights: Sequence[float],  # likewise; the default is 0
    loss: str,  # name of the objective
    data: DataSpec,  # of the run
) -> tuple[GuideConfig, ...]:
    """Read the critics of a new run. Raises SganError if they do not fit its images, or exclude each other."""
    for option, given in (("--guide-weight", weights), ("--guide-discriminator", discriminator_weights)):
        if given and not paths:
            raise MisuseError(f"{option} has no effect without --guide.", hint=f"Add --guide, or remove {option}.")
        if len(given) not in (0, 1, len(paths)):
            raise MisuseError(
                f"There are {len(given)} {option} for {len(paths)} --guide.", hint="Use one for all, or one for each."
            )
    guides: list[GuideConfig] = []
    for i, path in enumerate(paths):
        info = CRITIC_FILE.read_info(path)
        if info.channels != data.channels:
            raise SganError(
                f"The critic {path} judges images with {info.channels} channels, but those in {data.path} have "
                f"{data.channels}.",
                hint=f"Make another: sgan critic fit --attribute {quote(info.name)} --data DATASET",
            )
        if info.height * data.width != info.width * data.height:
            raise SganError(
                f"The critic {path} judges images of {info.height}x{info.width} (height x width), and those in "
                f"{data.path} have other proportions: {data.height}x{data.width}.",
                hint=f"Make another: sgan critic fit --attribute {quote(info.name)} --data DATASET",
            )
        guides.append(
            GuideConfig(
                os.path.abspath(path),
                sha256_of(Path(path)),
                info.attribute,
                info.value,
                _pick(weights, i, DEFAULT_WEIGHTS.get(loss, DEFAULT_WEIGHT)),
                _pick(discriminator_weights, i, 0.0),
            )
        )
    _refuse_contradictions(guides)
    return tuple(guides)


def _pick(values: Sequence[float], index: int, default: float) -> float:
    return default if not values else values[index if len(values) > 1 else 0]


def _refuse_contradictions(guides: Sequence[GuideConfig]) -> None:
    values: dict[str, GuideConfig] = {}
    for guide in guides:
        other = values.setdefault(guide.attribute, guide)
        if other is guide:
            continue
        if other.value == guide.value:
            raise MisuseError(f"Two guides are for {guide.name}.", hint="Use one, with a larger --guide-weight.")
        raise MisuseError(
            f"The guides {other.name} and {guide.name} exclude each other: an image has one value of an attribute.",
            hint="Remove one of them.",
        )


def _bounded(score: Tensor) -> Tensor:
    """f(u) = min(u, 1): more than enough of an attribute is not better. The method's text names f without defining it;
    this form is a guess."""
    return score.clamp_max(1)
