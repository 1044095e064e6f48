"""What a metric is: a name, a detector, a statistic of what that sees, and a function that makes numbers of it.

Each metric's file defines its own. These files are read without PyTorch, which they import where they compute: so names
are listed, and wrong ones refused, at once.
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

ALL = 1 << 62  # more images than any set has
USUAL_NUM = 50_000


@dataclass(frozen=True)
class Features:
    """What a detector says of an image."""

    detector: str
    output: str  # of the detector
    size: int  # numbers for each image
    infix: str = ""  # how names of metrics tell that they are measured with these


INCEPTION = Features("inception-2015", "pool", 2048)
CLASSES = Features("inception-2015", "logits", 1008)
VGG = Features("vgg16", "fc2", 4096)
EFFICIENTNET = Features("efficientnet-lite0", "pool", 1280, "_efficientnet")
DISTANCES = Features("lpips-vgg", "distances", 1)


class Output(NamedTuple):
    """One of a metric's values."""

    ending: str = ""  # of its name
    higher_is_better: bool = False


class Value(NamedTuple):
    """A number that was measured."""

    value: float
    deviation: float | None = None  # where one is known


@dataclass(frozen=True)
class LatentPath:
    """A path from one latent to another, of which pairs of images are drawn."""

    space: Literal["z", "w"]
    full: bool  # t ~ U(0, 1); else 0
    crop: bool  # the center of an aligned face


@dataclass(frozen=True)
class Settings:
    """What all passes over images, and all computations, of one measurement have in common."""

    device: torch.device
    batch: int  # images at a time on one rank
    seed: int = 0
    progress: Progress = silent  # called on the first rank
    detector_file: Path | None = None  # weights in place of the detector's


# Makes a metric's values of the statistic of the reals, which is empty where it needs none, and that of the fakes
Compute: TypeAlias = "Callable[[Tensors, Tensors, Settings], list[Value]]"


@dataclass(frozen=True)
class Metric:
    """One metric, as one protocol measures it."""

    template: str  # of the name, with places for {num} and, where the features may be others, {features}
    about: str  # one line for the help text
    features: Features
    statistic: str  # of the features, a name of `statistics.STATISTICS`
    compute: Compute
    outputs: tuple[Output, ...] = (Output(),)  # one for each value
    short: str = ""  # another name of the usual protocol
    reals: int = 0  # at most so many of the data set
    mirror: bool = False  # reals also flipped, where training did so
    least: int = 2  # images it takes, of each side
    smallest: int = 0  # pixels a side of the images that it takes
    path: LatentPath | None = None  # it is measured on pairs of images
    num: int = USUAL_NUM  # images, or pairs, of the model
    note: Callable[[Metric], str | None] | None = None  # gives a sentence that belongs under the value

    def mirrors(self, data: Dataset | None) -> bool:
        """Whether this set's images are also taken flipped."""
        return self.mirror and data is not None and data.spec.mirror

    def reals_of(self, data: Dataset | None) -> int:
        """How many real images are taken."""
        return 0 if data is None else min(self.reals, len(data) * (2 if self.mirrors(data) else 1))

    def name(
        self,
        ending: str = "",
    ) -> str:
        """'fid50k_full', 'fid_efficientnet5k_full', 'ppl2_wend_500', 'pr50k3_full_precision'."""
        untold = self.path is not None and self.num == USUAL_NUM  # names of path lengths tell no usual number
        number = "" if untold else f"{self.num // 1000}k" if self.num % 1000 == 0 else str(self.num)
        return self.template.format(features=self.features.infix, num=number).rstrip("_") + ending


def against_reals(
    metric: Metric,  # as it is measured against all real images
) -> tuple[Metric, Metric]:
    """The two protocols of the field: against all real images, and against few, which are mirrored as in training."""
    few = "at most 50,000 real images, mirrored as in training"
    return (
        dataclasses.replace(metric, template=metric.template + "_full", about=f"{metric.about} the real images"),
        dataclasses.replace(metric, about=f"{metric.about} {few}", short="", reals=50_000, mirror=True),
    )


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is measured and how, settled once and passed on, to every rank."""

    metrics: tuple[Metric, ...]  # each once
    batch: int | None = None  # images at a time on one rank; None: by their size
    seed: int = 0
    truncation_psi: float = 1.0
    detector_file: str | Path | None = None  # weights of the one detector that these metrics use

    @property
    def needs_reals(self) -> bool:
        return any(m.reals for m in self.metrics)
