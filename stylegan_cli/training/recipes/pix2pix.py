"""The recipe of pix2pix (Isola et al. 2017): a U-net that translates images, and a discriminator of patches of pairs.

D            the logistic loss on pairs with the image and with its translation, divided by 2 (section 3.3)
G            the logistic loss of the translation, and lambda times its mean absolute difference (equation 4)

Dropout is the only noise, sampled by the index of the image: both phases see the same translation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...data.pairs import PairedDataset
from ...layers import to_memory_format
from ...models.translators.pix2pix import PatchDiscriminator, UNet
from ...sampling.degrade import Pairs
from ...sampling.translators import dropout
from .. import losses
from ..optimizer import FusedAdam
from ..pix2pix_config import Pix2PixRunConfig
from ..recipe import Phase
from .fitting import FittingRecipe, ImageBatch, Rate


class LinearRate(Rate):
    """Learning rates that are constant in the first half of the run, and fall to 0 in the second (as in the authors'
    PyTorch code)."""

    def _curve(self) -> float:
        return min(2 * max(1 - self.shown / self.end, 0.0), 1.0)


class Pix2PixRecipe(FittingRecipe):
    divergence_advice = "Start a new run with a lower --lr."

    def __init__(
        self,
        config: Pix2PixRunConfig,
        dataset: PairedDataset,
        device: torch.device | str = "cpu",
    ):
        super().__init__(config, dataset, device)
        self.config, self.task = config, Pairs(config.generator.inputs)
        torch.manual_seed(config.seed)  # the same initial weights on all ranks
        self.G, self.D = UNet(config.generator), PatchDiscriminator(config.generator)
        self.networks = {"G": self.G, "D": self.D}
        for network in self.networks.values():
            to_memory_format(network).to(self.device).requires_grad_(False)
        G_opt, D_opt = (
            FusedAdam(list(network.parameters()), lr=config.lr, betas=config.betas) for network in (self.G, self.D)
        )
        self.phases = [Phase("D", self.D, D_opt, self._separate), Phase("G", self.G, G_opt, self._translate)]
        self.rate = LinearRate(config.kimg, [D_opt, G_opt])
        self.parts = {"data": self.loader, "rate": self.rate}

    def _separate(self, batch: ImageBatch) -> Tensor:  # [] sum over the images
        source, images = self._pairs(batch.images)
        with torch.no_grad():
            fakes = self._fakes(source, batch)
        loss = losses.discriminator_logistic(self.D(source, images), self.D(source, fakes)).mean((1, 2, 3))
        self.means.add("loss/D", loss)
        return loss.sum() / 2

    def _translate(self, batch: ImageBatch) -> Tensor:  # [] sum over the images
        source, images = self._pairs(batch.images)
        fakes = self._fakes(source, batch)
        loss = losses.generator_logistic(self.D(source, fakes)).mean((1, 2, 3))
        absolute = (fakes - images).abs().mean((1, 2, 3))
        self.means.add("loss/G", loss)
        self.means.add("loss/absolute", absolute)
        return (loss + self.config.absolute_weight * absolute).sum()

    def _fakes(self, source: Tensor, batch: ImageBatch) -> Tensor:
        kept = dropout(self.G, self.seed, batch.index)
        return self.G(source, [x.to(source.dtype) for x in kept])

    def _pairs(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [N, inputs, H, W], [N, C, H, W]
        channels = self.config.generator.channels
        return images[:, channels:], images[:, :channels]

    @torch.no_grad()
    def reconstructions(
        self,
        count: int | None = None,  # number of images; None: all that are held out
    ) -> Iterator[tuple[Tensor, Tensor, None, Tensor]]:
        """Held-out images, what they are translated from, nothing (there are no latents), and translations without
        dropout, in batches."""
        for part in self.measured(count):
            source, images = self._pairs(self.dataset.images(part).to(self.device).float() / 127.5 - 1)
            yield images, source, None, self.G(source)
