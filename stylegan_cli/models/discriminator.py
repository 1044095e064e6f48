"""The base class of all discriminators: from an image, and a label if there is one, to a logit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import BatchNorm
from .config import DiscriminatorConfig


class Discriminator(nn.Module):
    """A family implements `forward_with_classes` and `features`, and lists its layers."""

    layers: tuple[str, ...]  # names of the trainable modules, from the image to the logit, for Freeze-D

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config

    def forward(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim] one-hot
        dtype: torch.dtype | None = None,  # half precision type for the highest levels; None: full precision
    ) -> Tensor:  # [N, 1] logits: positive means real
        """Raises ValueError if the images have the wrong size, or a conditional discriminator gets no label."""
        return self.forward_with_classes(image, c, dtype)[0]

    def forward_with_classes(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
        c: Tensor | None = None,  # [N, c_dim] one-hot; not needed with labels 'classifier'
        dtype: torch.dtype | None = None,  # as in `forward`
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits; [N, c_dim + codes] predictions, None if there are none
        """Like `forward`; with labels 'classifier' also predict the class, as logits, and with codes their numbers."""
        raise NotImplementedError

    def features(
        self,
        image: Tensor,  # [N, channels, height, width] in [-1, 1]
    ) -> list[Tensor]:  # [N, C, h, w] each, from high to low resolution
        """What the network sees in each image, without statistics of the batch."""
        raise NotImplementedError

    def judge_separately(self) -> None:
        """From now on use no statistics of the batch."""
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.eval()

    def check_image(self, image: Tensor) -> None:
        """Raise ValueError if images have another size than the network's."""
        config = self.config
        if image.shape[1:] != (config.channels, config.height, config.width):
            raise ValueError(f"images must be [N, {config.channels}, {config.height}, {config.width}]")

    def require_labels(
        self,
        c: Tensor | None,  # [N, c_dim]
    ) -> Tensor:
        """Raise ValueError if there are no labels."""
        if c is None:
            raise ValueError(f"this discriminator is conditional: it needs c of shape [N, {self.config.c_dim}]")
        return c
