"""The complete settings of a training run: a frozen dataclass that is saved as JSON in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..config import check_choice, check_range, from_json
from ..data.dataset import DataSpec
from ..errors import MisuseError, SganError
from ..models.config import DiscriminatorConfig, GeneratorConfig
from ..models.presets import Schedule
from ..models.registry import READERS
from ..runs.history import HISTORY
from ..runs.records import GAN, recipe_of
from .choices import ENCODERS, OBJECTIVES, PRECISIONS


@dataclass(frozen=True)
class GrowthConfig:
    """Progressive growing (Karras et al. 2018, section 2): levels from low to high, each faded in, then stable.

    The last level is trained until the run ends.
    """

    start: int  # first level, 4 * 2^k
    stable_kimg: float = 600.0  # thousands of images at each level after it has faded in
    fade_kimg: float = 600.0  # thousands of images in which a level fades in
    batch: tuple[int, ...] = ()  # batch of each level from `start` on; empty: the run's batch
    lr: tuple[float, ...] = ()  # learning rate of each level, likewise


@dataclass(frozen=True)
class GuideConfig:
    """An attribute critic that adds a term to the losses, see training/guides.py."""

    path: str  # of the critic's file
    content_hash: str  # SHA-256 of the file
    attribute: str  # that it judges
    value: str
    weight: float  # of its term in the generator's loss
    discriminator_weight: float = 0.0  # of its term in the discriminator's loss

    def __post_init__(self) -> None:
        check_range(self, "weight")
        check_range(self, "discriminator_weight")

    @property
    def name(self) -> str:
        return f"{self.attribute}={self.value}"


@dataclass(frozen=True)
class TrainConfig:
    """The complete settings of a training run: the same TrainConfig gives the same run."""

    recipe: ClassVar[str] = GAN
    cfg: str  # name of the preset
    data: DataSpec
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    batch: int  # images per step, over all ranks
    batch_gpu: int  # images at a time on one rank; gradients are accumulated
    gpus: int = 1  # ranks
    kimg: float = 25000.0  # length of the run in thousands of images shown to the discriminator
    snap: float = 200.0  # thousands of images between snapshots
    seed: int = 0
    lr: float = 0.0025  # Adam's learning rate
    d_lr: float | None = None  # the discriminator's; None: lr
    d_steps: int = 1  # steps of the discriminator for one of the generator
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8
    loss: str = "logistic"  # the objective, a name of choices.OBJECTIVES
    gamma: float = 1.0  # weight of R1
    r2_gamma: float = 0.0  # weight of R2
    gp_weight: float = 0.0  # weight of the gradient penalty ('wgan')
    drift: float = 0.001  # weight of D's squared output on reals ('wgan')
    aux_weight: float = 1.0  # weight of the classification loss (D with labels 'classifier')
    info: int = 0  # values of a code that takes the place of the class, and that D recovers (InfoGAN); 0: none
    info_continuous: int = 0  # numbers of z, from the first, that D recovers
    info_weight: float = 1.0  # weight of the recovery of the codes in both losses
    encoder: str = ""  # 'bigan', 'vaegan': how an encoder is trained beside both networks; empty: there is none
    mode_weight: float = 0.0  # weight of the terms of mode regularization (MRGAN), which train an encoder; 0: none
    r1_interval: int = 16  # steps between D's gradient penalties
    pl_weight: float = 2.0  # weight of path-length regularization, 0 = off
    pl_interval: int = 4  # steps between path-length regularizations
    pl_decay: float = 0.01  # decay of the running mean of path lengths
    pl_batch_shrink: int = 2  # the path-length batch is the batch divided by this
    mixing_prob: float = 0.9  # style-mixing probability
    ema_kimg: float = 10.0  # half-life of the generator's moving average
    ema_rampup: float | None = None  # the half-life is at most this fraction of the images shown so far; None = off
    aug: str = "noaug"  # augmentation of D's images: 'ada': p adapts; 'fixed': p is constant; 'diffaug'; 'noaug'
    augpipe: str = "bgc"  # transformations, a name of choices.PIPES ('ada' and 'fixed')
    aug_p: float = 0.0  # probability of each transformation, at the start ('ada') or throughout ('fixed')
    ada_target: float = 0.6  # target of r_t, the mean sign of D's outputs on reals
    ada_kimg: float = 500.0  # thousands of images in which p can go from 0 to 1
    ada_interval: int = 4  # steps between changes of p
    blur_sigma: float = 0.0  # blur of D's images at the start, in pixels, see training/blur.py
    blur_kimg: float = 200.0  # thousands of images in which it falls to 0
    precision: str = "fp32"  # 'fp32'; 'tf32': on CUDA; 'fp16', 'bf16': at the highest levels
    freezed: int = 0  # Freeze-D: number of D's layers, counted from the image, that are not trained
    resume: str | None = None  # model file with the initial weights
    growth: GrowthConfig | None = None  # None: full size from the start
    schedule: Schedule | None = None  # None: all settings stay the same
    stage_kimg: float = 0.0  # thousands of images in which each stage of a chain but the last is trained; 0: at once
    guides: tuple[GuideConfig, ...] = ()  # attribute critics

    def __post_init__(self) -> None:
        for name in ("r1_interval", "pl_interval", "pl_batch_shrink", "ada_interval", "d_steps"):
            check_range(self, name, 1)
        check_batch(self)
        for name in ("seed", "kimg", "snap", "lr", "eps", "ema_kimg", "gamma", "pl_weight", "betas", "r2_gamma"):
            check_range(self, name)
        names = ("gp_weight", "drift", "aux_weight", "freezed", "blur_sigma", "blur_kimg")
        for name in (*names, "info", "info_continuous", "info_weight", "mode_weight", "stage_kimg"):
            check_range(self, name)
        if self.d_lr is not None:
            check_range(self, "d_lr")
        for name, low, high in (("aug_p", 0, 1), ("mixing_prob", 0, 1), ("ada_target", -1, 1), ("ada_kimg", 1e-9, 1e9)):
            check_range(self, name, low, high)
        check_choice("aug", self.aug, ("ada", "fixed", "noaug", "diffaug"))
        check_choice("precision", self.precision, PRECISIONS)
        _check_objective(self)
        _check_codes(self)
        _check_chain(self)
        _check_encoder(self)
        if len(self.betas) != 2 or max(self.betas) >= 1:
            raise SganError("TrainConfig: betas must be two numbers below 1.")
        group = self.discriminator.batch_group
        if group and self.batch_gpu % min(group, self.batch_gpu):
            raise MisuseError(
                f"--batch-gpu {self.batch_gpu} is not a multiple of --mbstd-group {group}.",
                hint="Choose --batch-gpu as a multiple of --mbstd-group.",
            )

    @property
    def needed_files(self) -> list[tuple[str, str]]:
        return [(guide.path, guide.content_hash) for guide in self.guides]


def check_batch(
    config: Any,  # the settings of a run, with batch, batch_gpu and gpus
) -> None:
    """Raise SganError if the batch cannot be divided among the ranks, in parts of `batch_gpu`."""
    for name in ("batch", "batch_gpu", "gpus"):
        check_range(config, name, 1)
    if config.batch % config.gpus:
        raise MisuseError(
            f"--batch {config.batch} is not a multiple of --gpus {config.gpus}.",
            hint=f"Use a multiple of {config.gpus} for --batch.",
        )
    if config.batch % (config.batch_gpu * config.gpus):
        raise MisuseError(
            f"--batch {config.batch} is not a multiple of --gpus {config.gpus} times --batch-gpu {config.batch_gpu}.",
            hint=f"Use a multiple of {config.gpus * config.batch_gpu} for --batch.",
        )


def _check_objective(config: TrainConfig) -> None:
    """Check the objective. Raises SganError if it is incompatible with penalties, augmentation or labels."""
    check_choice("loss", config.loss, tuple(OBJECTIVES))
    if config.loss == "wgan" and max(config.gamma, config.r2_gamma) > 0:
        raise MisuseError("--loss wgan uses the gradient penalty, not R1 or R2.", hint="Remove --gamma and --r2.")
    if config.loss != "wgan" and config.gp_weight > 0:
        raise MisuseError(f"--loss {config.loss} uses R1 and R2, not the gradient penalty.", hint="Remove --gp.")
    if config.gp_weight > 0 and config.discriminator.uses_batch:
        raise MisuseError(
            "--loss wgan penalizes the gradient at each image by itself, but the discriminator of "
            f"{config.generator.title} has batch normalization, with which each output depends on the whole batch "
            "(Gulrajani et al. 2017, section 4).",
            hint="Choose another --loss, or another --cfg.",
        )
    if config.loss == "wgan" and config.aug == "ada":
        raise MisuseError(
            "--aug ada does not work with --loss wgan, which has no boundary between real and generated images.",
            hint="Choose --aug fixed with --p 0.2, or --aug diffaug.",
        )
    if config.discriminator.labels == "classifier" and config.discriminator.c_dim == 0:
        raise MisuseError("A discriminator with a classifier needs labels.", hint="Add --cond.")
    if config.discriminator.labels == "classifier" and config.data.vectors:
        hint = "Remove --aux-classifier."
        raise SganError("A discriminator with a classifier needs classes, but the labels are vectors.", hint=hint)


def _check_encoder(config: TrainConfig) -> None:
    """Check what is trained with an encoder. Raises SganError if that excludes classes, codes or growing."""
    check_choice("encoder", config.encoder, ("", *ENCODERS))
    option = f"--recipe {config.encoder}" if config.encoder else "--mode-regularize" if config.mode_weight else ""
    if config.encoder and config.mode_weight:
        raise MisuseError(
            f"{option} and --mode-regularize cannot be combined: each trains an encoder.", hint="Remove one of them."
        )
    if option and config.generator.c_dim:
        classes = "--info" if config.info else "--cond"
        raise MisuseError(
            f"{option} cannot be combined with {classes}: its encoder does not know classes.",
            hint="Remove one of them.",
        )
    if config.encoder and config.info_continuous:
        raise MisuseError(
            f"{option} cannot be combined with --info-continuous: its encoder recovers all of z.",
            hint="Remove one of them.",
        )
    if config.encoder == "bigan" and config.gp_weight:
        raise MisuseError(
            f"{option} cannot be combined with --loss {config.loss}: no z belongs to an image between two others.",
            hint="Choose another --loss.",
        )
    if option and config.growth:
        raise MisuseError(
            f"{option} cannot be combined with growing: its encoder has one size.",
            hint="Remove it, or choose a --cfg that does not grow.",
        )
    if config.encoder == "bigan" and config.mixing_prob:
        raise MisuseError(
            f"{option} cannot be combined with --mixing-prob: an image of two latents has no z.", hint="Remove it."
        )


def _check_codes(config: TrainConfig) -> None:
    """Check the codes. Raises SganError if they exclude classes of the dataset, or do not fit into z."""
    if config.info == 1:
        raise MisuseError("A code of one value says nothing.", hint="Choose --info 2 or more.")
    if config.info and config.data.c_dim:
        raise MisuseError(
            "--info and --cond cannot be combined: the code takes the place of the class.",
            hint="Remove --cond, or replace --info by --info-continuous.",
        )
    if config.info_continuous > config.generator.z_dim:
        raise MisuseError(
            f"--info-continuous is {config.info_continuous}, but z has {config.generator.z_dim} numbers.",
            hint="Choose a few, such as --info-continuous 2.",
        )


def refuse_for_chains(
    title: str,  # of a family of chains of generators
    used: dict[str, Any],  # option -> whether it is used
) -> None:
    """Raise SganError if an option is used."""
    for option, value in used.items():
        if value:
            raise MisuseError(
                f"{option} does not apply to {title} models.",
                hint=f"Remove {option}, or choose another --cfg.",
            )


def _check_chain(config: TrainConfig) -> None:
    """Check what a chain of generators cannot be trained with. Raises SganError."""
    title = config.generator.title
    if not config.generator.is_chain:
        if config.stage_kimg:
            raise MisuseError(f"--stage-kimg has no effect on {title} models.", hint="Remove it.")
        return
    used = {
        f"--recipe {config.encoder}": config.encoder,
        "--mode-regularize": config.mode_weight,
        "--guide": config.guides,
        "--pl-weight": config.pl_weight,
        "--mixing-prob": config.mixing_prob,
        "--freezed": config.freezed,
        "--grow-from": config.growth,
        "--aug ada": config.aug == "ada",
        f"--precision {config.precision}": config.precision in ("fp16", "bf16"),
    }
    refuse_for_chains(title, used)
    if config.stage_kimg and not config.generator.learns_in_turn:
        message = f"--stage-kimg has no effect on {title} models, whose stages learn at the same time."
        raise MisuseError(message, hint="Remove it.")
    if config.generator.learns_in_turn and not 0 < config.stage_kimg < config.kimg:
        raise MisuseError(
            f"The second stage starts at {config.stage_kimg:g} kimg, but the run ends at {config.kimg:g} kimg.",
            hint="Choose a larger --kimg or a smaller --stage-kimg.",
        )


def read_config(
    values: dict[str, Any],  # contents of config.json, of this or an older version
) -> TrainConfig:
    """Read a TrainConfig. Raises SganError as `from_json` does, and if the settings belong to another recipe."""
    if isinstance(values, dict):
        if (recipe := recipe_of(values)) not in (None, TrainConfig.recipe):
            raise SganError(f"The settings belong to the recipe {recipe!r}, not to {TrainConfig.recipe!r}.")
        values = {name: value for name, value in values.items() if name not in ("recipe", HISTORY)}
    return from_json(TrainConfig, values, READERS)
