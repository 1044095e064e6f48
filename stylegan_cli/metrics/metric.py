"""Definition of a metric: a name, a detector, a statistic of its features, and a function that computes values.

Each metric is defined in its own file. These files import PyTorch only where they compute, so that listing and checking
names is fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ..progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from ..data.dataset import Dataset
    from .statistics import Tensors

ALL_REALS = 1 << 62  # more images than any dataset has
DEFAULT_NUM = 50_000
SEPARATOR = "_k"  # in names, between a number of images and the k of nearest neighbors: pr24_k3, but pr50k3


@dataclass(frozen=True)
class Features:
    """One output of a detector."""

    detector: str
    output: str  # key of the detector's output
    size: int  # number of features per image
    infix: str = ""  # part of the metric's name


INCEPTION = Features("inception-2015", "pool", 2048)
CLASSES = Features("inception-2015", "logits", 1008)
VGG = Features("vgg16", "fc2", 4096)
EFFICIENTNET = Features("efficientnet-lite0", "pool", 1280, "_efficientnet")
DISTANCES = Features("lpips-vgg", "distances", 1)
ERRORS = Features("", "errors", 2)  # of pixels, without a detector

Motion = Literal["int", "frac", "rotate"]  # translation by whole pixels, by any distance; rotation


class Output(NamedTuple):
    """One of a metric's values."""

    suffix: str = ""  # suffix of its name
    higher_is_better: bool = False


class Value(NamedTuple):
    """A measured number."""

    value: float
    deviation: float | None = None  # standard error or standard deviation, if known


@dataclass(frozen=True)
class LatentPath:
    """A path between two latents, along which pairs of images are generated."""

    space: Literal["z", "w"]
    full: bool  # t ~ U(0, 1); else t = 0
    crop: bool  # whether to crop the center of an aligned face


@dataclass(frozen=True)
class Settings:
    """Settings of one measurement, common to all its passes and computations."""

    device: torch.device
    batch: int  # images at a time on one rank
    seed: int = 0
    progress: Progress = silent  # called on the first rank
    detector_file: Path | None = None  # file of the detector's weights; None: the published ones


# Computes a metric's values from the statistics of the reals (empty if it needs none) and of the fakes
Compute: TypeAlias = "Callable[[Tensors, Tensors, Settings], list[Value]]"


@dataclass(frozen=True)
class Metric:
    """A metric with all parameters of its protocol."""

    template: str  # of the name, with {num}; with {features} if others are possible; with {k} before another number
    description: str  # one line for the help text
    features: Features
    statistic: str  # of the features, key of `statistics.STATISTICS`
    compute: Compute
    outputs: tuple[Output, ...] = (Output(),)  # one per value
    alias: str = ""  # short name of the standard protocol
    max_reals: int = 0  # maximum number of real images
    mirror: bool = False  # whether reals are also flipped, if training does so
    min_images: int = 2  # minimum number of real and of generated images
    min_side: int = 0  # minimum height and width of the images, in pixels
    path: LatentPath | None = None  # set if it is measured on pairs of images
    motion: Motion | None = None  # set if it is measured by moving the input of the generator
    num: int = DEFAULT_NUM  # number of generated images or pairs
    note: Callable[[Metric, list[Value]], str | None] | None = None  # returns sentences to show below the values

    @property
    def needs_model(self) -> bool:
        """Whether it cannot be measured on images of a dataset."""
        return self.path is not None or self.motion is not None

    def uses_mirrored(self, data: Dataset | None) -> bool:
        """Whether the images of this dataset are also used flipped."""
        return self.mirror and data is not None and data.spec.mirror

    def num_reals(self, data: Dataset | None) -> int:
        """Number of real images used."""
        return 0 if data is None else min(self.max_reals, len(data) * (2 if self.uses_mirrored(data) else 1))

    def name(
        self,
        suffix: str = "",
    ) -> str:
        """Full name, such as fid50k_full, fid_efficientnet5k_full, ppl2_wend_500, pr50k3_full_recall, pr24_k3_full."""
        is_omitted = self.path is not None and self.num == DEFAULT_NUM  # names of path lengths omit the default
        number = "" if is_omitted else f"{self.num // 1000}k" if self.num % 1000 == 0 else str(self.num)
        separator = "" if number.endswith("k") else SEPARATOR
        infix = self.features.infix
        infix += "_" if infix and number and separator else ""  # 'efficientnet24' looks like a network
        return self.template.format(features=infix, num=number, k=separator).rstrip("_") + suffix


def full_and_50k(
    metric: Metric,  # measured against all real images
) -> tuple[Metric, Metric]:
    """The two standard protocols: against all real images, and against at most 50,000, mirrored as in training."""
    limited = "at most 50,000 real images, mirrored as in training"
    return (
        dataclasses.replace(
            metric, template=metric.template + "_full", description=f"{metric.description} all real images"
        ),
        dataclasses.replace(
            metric, description=f"{metric.description} {limited}", alias="", max_reals=50_000, mirror=True
        ),
    )


@dataclass(frozen=True)
class EvaluationProtocol:
    """Which metrics to measure, and with which options; sent to every rank."""

    metrics: tuple[Metric, ...]  # without duplicates
    batch: int | None = None  # images at a time on one rank; None: depends on their size
    seed: int = 0
    truncation_psi: float = 1.0
    detector_file: str | Path | None = None  # file of weights, if these metrics use only one detector

    @property
    def needs_reals(self) -> bool:
        return any(m.max_reals for m in self.metrics)
