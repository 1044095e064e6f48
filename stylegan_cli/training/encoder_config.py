"""The complete settings of a run that fits an encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..config import check_choice, check_range, from_json
from ..data.dataset import DataSpec
from ..detectors.losses import LOSSES
from ..errors import MisuseError, SganError
from ..models.encoders.pyramid import EncoderConfig
from ..runs.history import HISTORY
from ..runs.records import ENCODER, recipe_of
from .config import check_batch


@dataclass(frozen=True)
class EncoderRunConfig:
    """The complete settings of a run: the same settings and model give the same run."""

    recipe: ClassVar[str] = ENCODER
    model: str  # path of the generator's file, a snapshot
    fingerprint: str  # of the generator
    data: DataSpec
    encoder: EncoderConfig
    batch: int  # images per step, over all ranks
    batch_gpu: int  # images at a time on one rank
    gpus: int = 1  # ranks
    kimg: float = 60.0  # length of the run in thousands of images
    snap: float = 10.0  # thousands of images between snapshots
    seed: int = 0
    held_out: int = 256  # images that are only used to measure the encoder
    lr: float = 2e-3  # of Adam, at the start; falls to 0 as a cosine
    betas: tuple[float, float] = (0.9, 0.99)
    ema_kimg: float = 5.0  # half-life of the encoder's moving average
    loss: str = "discriminator"  # distance of the reconstruction, beside that of the pixels: a name of losses.LOSSES
    loss_weight: float = 0.3
    detector: str | None = None  # file with the weights of the loss; None: see detectors/weights.py
    precision: str = "fp32"  # 'tf32': of the operands of convolutions and products, on CUDA
    identity: str | None = None  # network that compares faces: 'face', or a file; None: they are not compared
    identity_weight: float = 0.1  # of its distance (pSp: Richardson et al. 2021, section 3.2)
    pixel_weight: float = 1.0  # of the mean squared difference of pixels
    judged_weight: float = 2.0  # of the same of what `degrade.Task.judged` extracts
    latent_weight: float = 0.01  # of the mean squared difference of latents, of generated images with known latents
    latent_interval: int = 4  # steps between steps on generated images
    spread_weight: float = 0.04  # of the mean squared difference between the latents of one image
    critic_weight: float = 0.0  # of a critic that separates predicted from mapped latents; 0: none
    skips: bool = False  # add features of the encoder in a fine-tuned copy of the generator, see `SkipSynthesis`
    tuning: float = 0.3  # learning rate of that copy, relative to that of the encoder
    absolute_weight: float = 1.0  # with skips: of the mean absolute difference of pixels
    adversarial_weight: float = 0.0  # with skips: of the logistic loss of a copy of the model's discriminator
    discriminator_lr: float = 0.1  # of the discriminator's copy, relative to that of the encoder
    gamma: float = 0.01  # weight of its R1
    r1_interval: int = 16  # steps between penalties
    task: str = "invert"  # what the encoder sees of an image, a name of degrade.TASKS
    task_options: dict = field(default_factory=dict)  # not as by default
    segmenter: str | None = None  # file that gives the class maps of generated images, for the task mask
    segmenter_weight: float = 1.0  # of the cross-entropy between its classes of the result and the map
    source: DataSpec | None = None  # images or class maps with the names of the data's, for the tasks pairs and mask
    checkpoint: str | None = None  # file of another program that the snapshot was converted from
    origins: tuple[str, ...] = ()  # of the model, see `Owner`
    run: str = ""  # of the model, see `Owner`

    def __post_init__(self) -> None:
        for name in ("latent_interval", "r1_interval"):
            check_range(self, name, 1)
        names = ("seed", "kimg", "snap", "held_out", "lr", "ema_kimg", "loss_weight", "pixel_weight", "judged_weight")
        names += ("tuning", "absolute_weight", "adversarial_weight", "discriminator_lr", "gamma", "identity_weight")
        for name in (*names, "latent_weight", "spread_weight", "critic_weight", "segmenter_weight", "betas"):
            check_range(self, name)
        check_choice("loss", self.loss, LOSSES)
        check_choice("precision", self.precision, ("fp32", "tf32"))
        check_batch(self)
        check_held_out(self)

    @property
    def needed_files(self) -> list[tuple[str, str]]:
        return [] if self.segmenter is None else [(self.segmenter, self.data.content_hash)]


def check_held_out(
    config: Any,  # the settings of a run, with data and held_out
) -> None:
    """Raise SganError if no image is left to train on."""
    if config.data.num - config.held_out < 1:
        raise MisuseError(
            f"--held-out {config.held_out} leaves no image to train on: the dataset has {config.data.num}.",
            hint="Choose a smaller --held-out, such as 0.",
        )


def read_encoder_config(
    values: dict[str, Any],  # contents of config.json
) -> EncoderRunConfig:
    """Read the settings of a run. Raises SganError as `from_json` does, and if they belong to another recipe."""
    if (recipe := recipe_of(values)) not in (None, EncoderRunConfig.recipe):
        raise SganError(f"The settings belong to the recipe {recipe!r}, not to {EncoderRunConfig.recipe!r}.")
    return from_json(EncoderRunConfig, {n: value for n, value in values.items() if n not in ("recipe", HISTORY)})
