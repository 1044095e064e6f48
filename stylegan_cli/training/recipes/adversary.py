"""The discriminator of a generator that is fine-tuned with an encoder.

D            the logistic loss on real images and reconstructions
D R1         its gradient penalty
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...models.discriminator import Discriminator
from .. import losses
from ..encoder_config import EncoderRunConfig
from ..optimizer import lazy_adam
from ..recipe import Phase
from ..regularizers import gradient_penalty
from ..stats import Means


class Adversary:
    """A copy of a model's discriminator that looks at each image by itself."""

    def __init__(
        self,
        config: EncoderRunConfig,
        D: Discriminator,
        means: Means,  # collects losses
    ):
        self.config, self.means = config, means
        self.D = copy.deepcopy(D).requires_grad_(False)
        self.D.judge_separately()
        lr, betas = config.lr * config.discriminator_lr, (0.0, 0.99)
        self.optimizer = lazy_adam(list(self.D.parameters()), config.r1_interval if config.gamma else None, lr, betas)

    def phases(
        self,
        fakes: Callable[[Any], Tensor],  # ImageBatch -> [N, C, H, W]
    ) -> list[Phase]:
        phases = [Phase("D", self.D, self.optimizer, lambda batch: self._separate(fakes, batch))]
        if self.config.gamma:
            phases.append(Phase("D R1", self.D, self.optimizer, self._penalty, self.config.r1_interval))
        return phases

    def generator(
        self,
        images: Tensor,  # [N, C, H, W]
        labels: Tensor,  # [N, c_dim] of the dataset
    ) -> Tensor:  # [N] loss of generated images
        return losses.generator_logistic(self._judge(images, labels))[:, 0]

    def _separate(self, fakes: Callable[[Any], Tensor], batch: Any) -> Tensor:  # [] sum over the images
        with torch.no_grad():
            images = fakes(batch)
        fake, real = (self._judge(x, batch.labels) for x in (images, self._real(batch)))
        loss = losses.discriminator_logistic(real, fake)
        self.means.add("loss/D", loss)
        return loss.sum()

    def _penalty(self, batch: Any) -> Tensor:  # [] sum over the images
        images = self._real(batch).detach().requires_grad_(True)
        penalty = gradient_penalty(self._judge(images, batch.labels), images)
        self.means.add("r1/penalty", penalty)
        return self.config.gamma / 2 * penalty.sum()

    def _real(self, batch: Any) -> Tensor:  # [N, C, H, W]
        return batch.images[:, : self.D.config.channels]

    def _judge(self, images: Tensor, labels: Tensor) -> Tensor:  # [N, 1] logits
        """Without labels of the model's kind, all classes are equal."""
        count = self.D.config.c_dim
        if labels.shape[1] != count:
            labels = images.new_full((len(images), count), 1 / max(count, 1))
        return self.D(images, labels.to(images.dtype))
