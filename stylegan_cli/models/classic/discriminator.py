"""The end that all discriminators of classic GANs share: from features to a logit, with labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...layers import SpectralLinear
from ..discriminator import Discriminator
from .config import ClassicDiscriminatorConfig


class ClassicDiscriminator(Discriminator):
    """logit = A h + b, and with labels by projection + (C c)^T h (Miyato and Koyama 2018, equation 3)."""

    def __init__(
        self,
        config: ClassicDiscriminatorConfig,
        features: int,  # numbers of h
        spectral: bool,
    ):
        super().__init__(config)
        self.projects = config.c_dim > 0 and config.labels == "projection"
        classes = config.c_dim if config.labels == "classifier" else 0
        self.out = SpectralLinear(features, 1 + classes + config.codes, spectral=spectral)
        if self.projects:
            self.embed = SpectralLinear(config.c_dim, features, bias=False, spectral=spectral)

    def levels_of(
        self,
        image: Tensor,  # [N, channels, height, width]
        dtype: torch.dtype | None,
    ) -> Iterator[Tensor]:  # [N, C, h, w] after each block
        raise NotImplementedError

    def pooled(
        self,
        x: Tensor,  # [N, C, h, w] after the last block
    ) -> Tensor:  # [N, features]
        raise NotImplementedError

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim] one-hot; not needed with labels 'classifier'
        dtype: torch.dtype | None = None,  # half precision type for the highest levels; None: full precision
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; [N, c_dim + codes] predictions, None if there are none
        self.check_image(image)
        *_, x = self.levels_of(image, dtype)
        h = self.pooled(x.to(image.dtype))
        logits, predictions = self.out(h).split([1, len(self.out.weight) - 1], 1)
        if self.projects:
            logits = logits + (self.embed(self.require_labels(c)) * h).sum(1, keepdim=True)
        return logits, predictions if predictions.shape[1] else None

    def features(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, h, w] after each block
        self.check_image(image)
        return list(self.levels_of(image, None))
