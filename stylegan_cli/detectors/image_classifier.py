"""A small network that classifies an image's attributes: one body, and one head per attribute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

_WIDTHS = (16, 48, 96, 128)  # channels of the body's convolutions
_MAX_SIDE = 64  # pixels: larger images are halved by area average until they fit


@dataclass(frozen=True)
class Recognition:
    """How well an attribute is classified on held-out images."""

    accuracy: float
    majority: float  # accuracy of always predicting the most frequent value

    @property
    def skill(self) -> float:
        """Accuracy rescaled: 0 for always predicting the most frequent value, 1 for no errors."""
        return (self.accuracy - self.majority) / max(1 - self.majority, 1e-9)


class ImageClassifier(nn.Module):
    """Maps images to the log-probabilities of each attribute's values."""

    def __init__(
        self,
        attributes: dict[str, tuple[str, ...]],  # name -> values
        channels: int,  # channels of the images
        fine: bool,  # whether the first convolution keeps the size
    ):
        super().__init__()
        self.attributes = attributes
        self.recognition: dict[str, Recognition] = {}  # by attribute, once trained
        body: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((channels, *_WIDTHS), _WIDTHS, strict=False)):
            stride = 1 if i == 0 and fine else 2
            body += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleList(nn.Linear(_WIDTHS[-1] * 16, len(values)) for values in attributes.values())

    def forward(
        self,
        x: Tensor,  # float [N, C, h, w], from `prepare`
    ) -> list[Tensor]:  # [N, values] per attribute
        x = self.body(x)
        return [head(x).log_softmax(1) for head in self.heads]

    @torch.inference_mode()
    def classify(
        self,
        images: Tensor,  # uint8 [N, C, H, W]
    ) -> dict[str, Tensor]:  # by attribute: [N, values] float64
        """Return the log-probabilities of each attribute's values."""
        parts = [self(prepare(part)) for part in images.cpu().split(256)]
        columns = (torch.cat(column).double() for column in zip(*parts, strict=True))
        return dict(zip(self.attributes, columns, strict=True))


def prepare(
    images: Tensor,  # uint8 [N, C, H, W]
) -> Tensor:  # float [N, C, h, w] in [-1, 1], at most 64 pixels
    """Convert images to the classifier's input."""
    return reduce(images.float() / 127.5 - 1)


def reduce(
    images: Tensor,  # float [N, C, H, W]
) -> Tensor:  # float [N, C, h, w], at most 64 pixels
    """Halve images until they fit the classifier."""
    while max(images.shape[2:]) > _MAX_SIDE:
        images = avg_pool2d(images, 2)
    return images
