"""One training run, complete, as a frozen dataclass that is saved as JSON in its folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..config import check_choice, from_json
from ..data.dataset import DataSpec
from ..errors import SganError
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.registry import READERS
from ..runs.records import GAN, recipe_of
from .choices import OBJECTIVES, PRECISIONS


@dataclass(frozen=True)
class GrowthConfig:
    """Progressive growing (Karras et al. 2018, section 2): levels from low to high, each faded in, then trained on.

    The last one is trained until the run ends.
    """

    start: int  # level 4 * 2^k that the run begins at
    stable_kimg: float = 600.0  # thousands of images at each level, once it is there
    fade_kimg: float = 600.0  # in which a level fades in
    batch: tuple[int, ...] = ()  # of each level from `start` on; empty: the run's
    lr: tuple[float, ...] = ()  # the same


@dataclass(frozen=True)
class TrainConfig:
    """One training run, complete: the same TrainConfig gives the same run."""

    recipe: ClassVar[str] = GAN
    cfg: str  # name of the preset that it came from
    data: DataSpec
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    batch: int  # images per step, over all ranks
    batch_gpu: int  # images at a time on one rank; the rest is accumulated
    gpus: int = 1  # ranks
    kimg: float = 25000.0  # length of the run in thousands of images shown to the discriminator
    snap: float = 200.0  # thousands of images between snapshots
    seed: int = 0
    lr: float = 0.0025  # Adam's learning rate, both networks
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8
    loss: str = "logistic"  # the objective, a name of choices.OBJECTIVES
    gamma: float = 1.0  # weight of R1
    r2_gamma: float = 0.0  # weight of R2
    gp_weight: float = 0.0  # weight of the gradient penalty ('wgan')
    drift: float = 0.001  # weight of D's squared output on reals ('wgan')
    aux_weight: float = 1.0  # weight of the classes that D names (its labels 'classifier')
    r1_interval: int = 16  # steps between those of D's gradient penalties, whichever they are
    pl_weight: float = 2.0  # weight of path-length regularization, 0 = off
    pl_interval: int = 4
    pl_decay: float = 0.01  # of the running mean of path lengths
    pl_batch_shrink: int = 2  # the path-length batch is the batch divided by this
    mixing_prob: float = 0.9  # style-mixing probability
    ema_kimg: float = 10.0  # half-life of the generator's moving average
    ema_rampup: float | None = None  # the half-life is at most this fraction of the images shown so far; None = off
    aug: str = "noaug"  # augmentation of what D sees: 'ada': p adapts; 'fixed': p stays; 'diffaug'; 'noaug'
    augpipe: str = "bgc"  # which transformations, a name of choices.PIPES ('ada' and 'fixed')
    aug_p: float = 0.0  # probability of each, at the start ('ada') or throughout ('fixed')
    ada_target: float = 0.6  # of r_t, the mean sign of D's outputs on reals
    ada_kimg: float = 500.0  # thousands of images in which p can go from 0 to 1
    ada_interval: int = 4  # steps between changes of p
    precision: str = "fp32"  # 'fp32'; 'tf32': on CUDA; 'fp16', 'bf16': of the highest levels
    freezed: int = 0  # Freeze-D: so many of D's layers, from the image on, do not learn
    resume: str | None = None  # the model file that the weights came from
    growth: GrowthConfig | None = None  # None: at full size from the start

    def __post_init__(self) -> None:
        whole = (self.batch, self.batch_gpu, self.gpus, self.r1_interval, self.pl_interval, self.pl_batch_shrink)
        numbers = (self.kimg, self.snap, self.lr, self.eps, self.ema_kimg, self.gamma, self.pl_weight, *self.betas)
        numbers += (self.r2_gamma, self.gp_weight, self.drift, self.aux_weight)
        if min(*whole, self.ada_interval) < 1 or not all(math.isfinite(x) and x >= 0 for x in numbers) or self.seed < 0:
            raise SganError("TrainConfig: a number is negative, zero or not finite where it cannot be.")
        if not (0 <= self.aug_p <= 1 and -1 <= self.ada_target <= 1 and self.ada_kimg > 0 and self.freezed >= 0):
            raise SganError("TrainConfig: aug_p, ada_target, ada_kimg or freezed is out of range.")
        check_choice("aug", self.aug, ("ada", "fixed", "noaug", "diffaug"))
        check_choice("precision", self.precision, PRECISIONS)
        _check_objective(self)
        if len(self.betas) != 2 or max(self.betas) >= 1 or not 0 <= self.mixing_prob <= 1:
            raise SganError("TrainConfig: betas must be two numbers below 1, and mixing_prob from 0 to 1.")
        if self.batch % (self.batch_gpu * self.gpus):
            raise SganError(
                f"A batch of {self.batch} does not divide into {self.gpus} rank(s) of {self.batch_gpu} at a time.",
                hint="Choose --batch as a multiple of --gpus times --batch-gpu.",
            )
        group = self.discriminator.mbstd_group
        if self.discriminator.mbstd_channels and group and self.batch_gpu % min(group, self.batch_gpu):
            raise SganError(
                f"{self.batch_gpu} images at a time do not divide into minibatch-deviation groups of {group}.",
                hint="Choose --batch-gpu as a multiple of --mbstd-group.",
            )


def _check_objective(config: TrainConfig) -> None:
    """Raises SganError if the objective does not go with its penalties, the augmentation or the labels."""
    check_choice("loss", config.loss, tuple(OBJECTIVES))
    if config.loss == "wgan" and max(config.gamma, config.r2_gamma) > 0:
        raise SganError("wgan takes the gradient penalty, neither R1 nor R2.", hint="Leave --gamma and --r2 out.")
    if config.loss != "wgan" and config.gp_weight > 0:
        raise SganError(f"{config.loss} takes R1 and R2, not the gradient penalty.", hint="Leave --gp out.")
    if config.loss == "wgan" and config.aug == "ada":
        raise SganError(
            "wgan draws no line between real and generated that --aug ada could count images by.",
            hint="Choose --aug fixed with --p 0.2, or --aug diffaug.",
        )
    if config.discriminator.labels == "classifier" and config.discriminator.c_dim == 0:
        raise SganError("A discriminator that names classes needs labels.", hint="Give --cond.")


def read_config(
    values: dict[str, Any],  # what `to_json` made of a TrainConfig, today's or an old one; config.json
) -> TrainConfig:
    """Raises SganError as `from_json` does, and if they are the settings of another recipe."""
    if isinstance(values, dict):
        if (recipe := recipe_of(values)) not in (None, TrainConfig.recipe):
            raise SganError(f"These are settings of the recipe {recipe!r}, not of {TrainConfig.recipe!r}.")
        values = {name: value for name, value in values.items() if name != "recipe"}
    return from_json(TrainConfig, values, READERS)
