"""Attribute critics and their files: one safetensors file per critic, bound to the channels and shape of its images.

Tensors are named `C.<name in the classifier's state_dict>`; the header has the format and a `CriticInfo` as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import check_range
from ..data.dataset import DataSpec
from ..detectors.image_classifier import ImageClassifier
from ..snapshot import CRITIC_FORMAT, build_and_load
from ..version import __version__
from .file_kinds import FileKind


@dataclass(frozen=True)
class CriticInfo:
    """The contents of the header of a critic's file."""

    attribute: str
    value: str
    channels: int  # of the images
    height: int  # in pixels, of the images that the network sees
    width: int
    fine: bool  # whether its first convolution keeps the size
    accuracy: float  # of held-out images of the dataset, the mean of those with the attribute and those without
    low: float  # mean logit of held-out images without the attribute
    high: float  # mean logit of those with it
    held_out: int = 0  # number of held-out images
    junk: str = ""  # run whose early images are examples without the attribute; empty: none
    junk_rejected: float | None = None  # fraction of held-out early images that are seen as without the attribute
    data: DataSpec | None = None  # dataset that it was trained on
    version: str = __version__  # version of the program that wrote it

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width"):
            check_range(self, name, 1, 2**16)
        check_range(self, "accuracy", 0, 1)
        for name in ("low", "high"):
            check_range(self, name, -1e6, 1e6)

    @property
    def name(self) -> str:
        return f"{self.attribute}={self.value}"

    @property
    def skill(self) -> float:
        """Held-out accuracy, rescaled: 0 by chance, 1 for no errors."""
        return 2 * self.accuracy - 1


CRITIC_FILE = FileKind(CRITIC_FORMAT, "an attribute critic", CriticInfo, "Make one with `sgan critic fit`.")


class Critic(nn.Module):
    """Judges whether images have an attribute. Differentiable with respect to the images."""

    def __init__(self, info: CriticInfo, classifier: ImageClassifier):
        super().__init__()
        self.info, self.classifier = info, classifier

    def forward(
        self,
        images: Tensor,  # [N, C, H, W] in [-1, 1], of the critic's proportions
    ) -> Tensor:  # [N] logits: positive means that the image has the attribute
        (log_probabilities,) = self.classifier(fit_images(images, self.info.height, self.info.width))
        return log_probabilities[:, 1] - log_probabilities[:, 0]

    def score(
        self,
        logits: Tensor,  # [N] from `forward`
    ) -> Tensor:  # [N]
        """Rescale logits as least squares do: 0 for the mean image without the attribute, 1 for that with it."""
        return (logits - self.info.low) / max(self.info.high - self.info.low, 1e-6)


def make_classifier(
    attribute: str,
    value: str,
    channels: int,  # of the images
    fine: bool,  # whether the first convolution keeps the size
) -> ImageClassifier:
    """Return an untrained classifier for a critic: value 0 is without the attribute, 1 with it."""
    return ImageClassifier({attribute: (f"not {value}", value)}, channels, fine)


def fit_images(
    images: Tensor,  # [N, C, H, W]
    height: int,
    width: int,
) -> Tensor:  # [N, C, height, width]
    """Resize images: by the mean of areas where they are larger, linearly where they are smaller."""
    while images.shape[2] >= 2 * height and images.shape[3] >= 2 * width:
        images = F.avg_pool2d(images, 2)
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def save_critic(
    path: str | Path,
    critic: Critic,
) -> None:
    """Write a critic atomically. Raises SganError if the file cannot be written."""
    state = critic.classifier.state_dict()
    CRITIC_FILE.save(path, {f"C.{name}": t.detach().cpu().contiguous() for name, t in state.items()}, critic.info)


def load_critic(
    path: str | Path,
    device: torch.device | str = "cpu",
) -> Critic:
    """Load a critic in float32 and eval mode. Raises SganError if the file is missing, damaged or not a critic."""
    with CRITIC_FILE.open(Path(path)) as (f, info):
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    build = build_and_load(
        lambda: make_classifier(info.attribute, info.value, info.channels, info.fine), tensors, "C.", Path(path)
    )
    return Critic(info, build).to(device).eval().requires_grad_(False)
