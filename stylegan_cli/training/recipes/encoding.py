"""Objectives that train an encoder beside the generator and the discriminator.

- Mode regularization (MRGAN, Che et al. 2017): reconstructions of real images have to look real.
- BiGAN (Donahue et al. 2017; ALI, Dumoulin et al. 2017): D judges pairs of an image and a latent.
- VAE-GAN (Larsen et al. 2016): an autoencoder whose distance of images is that of D's features.

The encoder predicts z. It does not learn from images that are held out to measure it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.encoders.pyramid import PyramidEncoder
from ...sampling import counter
from ..config import TrainConfig
from .gan_objective import GanBatch, Objective

MODE_PIXELS, MODE_REALISM = 10.0, 0.2  # weights of mode regularization; measured by benchmarks/measure_modes.py
# Of VAE-GAN: weights of the divergence from the normal distribution, and of the distance of features in the loss of the
# generator. With a prior of 0.02 the encoder ignored images of 32 x 32 pixels (a PSNR of 11 dB after 20 kimg); with
# 0.001 it did not (17.6 dB).
PRIOR, SIMILARITY = 0.001, 5.0


class EncodingObjective(Objective):
    """An objective with an encoder, which has a phase of its own."""

    predicts_variance = False  # whether the encoder predicts two numbers for each of z

    def __init__(
        self,
        config: TrainConfig,
        *arguments: Any,  # of Objective
        E: PyramidEncoder,
    ):
        super().__init__(config, *arguments)
        self.E = E

    def encoder_main(self, batch: GanBatch) -> Tensor:  # [] sum over the images
        """The encoder's loss."""
        raise NotImplementedError

    def _learned(self, values: Tensor, batch: GanBatch) -> Tensor:  # [N] -> []
        """The sum over the images that the encoder learns from."""
        return (values if batch.held_out is None else values.masked_fill(batch.held_out, 0)).sum()

    def _log(self, name: str, values: Tensor, batch: GanBatch) -> None:
        """Add values [N] to the means, without those of images that are held out."""
        held_out = batch.held_out
        self.means.add(name, values if held_out is None else values.detach().masked_fill(held_out, torch.nan))

    def _decode(self, z: Tensor, batch: GanBatch, purpose: str) -> Tensor:  # [N, C, H, W]
        """The images of predicted latents. They teach nothing about images that are held out, nor do others by the
        minibatch deviation."""
        images, held_out = self._synthesize(self.G.mapping(z), batch, purpose), batch.held_out
        return images if held_out is None else torch.where(held_out[:, None, None, None], images.detach(), images)


class ModeObjective(EncodingObjective):
    def generator_main(self, batch: GanBatch) -> Tensor:
        return super().generator_main(batch) + self.mode_terms(batch)

    def encoder_main(self, batch: GanBatch) -> Tensor:
        return self.mode_terms(batch)

    def mode_terms(self, batch: GanBatch) -> Tensor:
        """What MRGAN adds to the losses of the generator and its encoder (Che et al. 2017, section 3.2): the distance
        between real images and their reconstructions, and D's opinion of these. A mode that the generator does not
        make is reconstructed badly, or looks fake.

        E predicts z: normalized as any z is, it is as likely as any other, so what is reconstructed is also generated.
        The mapping network need not reach a predicted w.
        """
        images = self._decode(self.E(batch.images)[:, 0], batch, "modes")
        pixels = (images - batch.images).square().mean((1, 2, 3))
        logits, _ = self._discriminate(images, batch.fake_labels, batch, "modes.aug")
        loss = self._generator_loss(logits, self._real_logits(batch, "modes.real.aug"))[:, 0]
        self._log("loss/E pixels", pixels, batch)
        self._log("loss/E", loss, batch)
        return self.config.mode_weight * self._learned(MODE_PIXELS * pixels + MODE_REALISM * loss, batch)


class BiGanObjective(EncodingObjective):
    """D takes z in the place of a label: (G(z), z) against (x, E(x)) (Donahue et al. 2017, equation 3)."""

    def fake_condition(self, batch: GanBatch, purpose: str) -> Tensor:  # [N, z_dim]
        shape = (self.config.generator.z_dim,)
        return counter.normal(self.config.seed, f"{purpose}.z", batch.index, shape).to(batch.images.dtype)

    @torch.no_grad()
    def real_condition(self, batch: GanBatch) -> Tensor:  # [N, z_dim]
        return self.E(batch.images.detach())[:, 0]

    def encoder_main(self, batch: GanBatch) -> Tensor:
        """E wants its pairs to pass for those of G: the generator's loss, with both kinds exchanged."""
        real, _ = self._discriminate(batch.images, self.E(batch.images)[:, 0], batch, "e.real.aug")
        if self.loss.paired:
            with torch.no_grad():
                fakes = self._fakes(batch, "e")
                fake, _ = self._discriminate(fakes, self.fake_condition(batch, "e"), batch, "e.fake.aug")
            values = self.loss.generator(fake, real)[:, 0]
        else:
            values = self.loss.generator(2 * (self.loss.boundary or 0) - real)[:, 0]
        self._log("loss/E", values, batch)
        return self._learned(values, batch)


class VaeGanObjective(EncodingObjective):
    """E gives the mean and the logarithm of the variance of each number of z (Larsen et al. 2016, algorithm 1).

    E    prior + similarity,   G    GAN + gamma similarity,   D    GAN
    The GAN losses are those of images of normal z and of reconstructions. D does not learn from the similarity.
    """

    predicts_variance = True

    def generator_main(self, batch: GanBatch) -> Tensor:
        with torch.no_grad():
            z = self._sampled(*self._posterior(batch), batch)
        images = self._decode(z, batch, "vae")
        logits, _ = self._discriminate(images, batch.fake_labels, batch, "vae.aug")
        loss = self._generator_loss(logits, self._real_logits(batch, "vae.real.aug"))[:, 0]
        self._log("loss/G reconstructions", loss, batch)
        similarity = SIMILARITY * self._similarity(images, batch)
        return super().generator_main(batch) + self._learned(loss + similarity, batch)

    def encoder_main(self, batch: GanBatch) -> Tensor:
        mean, log_variance = self._posterior(batch)
        prior = divergence(mean, log_variance)
        similarity = self._similarity(self._decode(self._sampled(mean, log_variance, batch), batch, "vae"), batch)
        self._log("loss/E prior", prior, batch)
        self._log("loss/E similarity", similarity, batch)
        return self._learned(PRIOR * prior + similarity, batch)

    def _discriminator_loss(self, batch: GanBatch, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Half of it is about reconstructions, so that real images count as much as generated ones."""
        total, real, fake = super()._discriminator_loss(batch, fakes)
        with torch.no_grad():
            images = self._decode(self._sampled(*self._posterior(batch), batch), batch, "vae.d")
        logits, _ = self._discriminate(images, batch.fake_labels, batch, "vae.d.aug")
        loss = self.loss.discriminator(real, logits)
        self.means.add("loss/D reconstructions", loss)
        return (total + loss.sum()) / 2, real, fake

    def _posterior(self, batch: GanBatch) -> tuple[Tensor, Tensor]:  # [N, z_dim] mean, log variance
        mean, log_variance = self.E(batch.images.detach())[:, 0].chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def _sampled(self, mean: Tensor, log_variance: Tensor, batch: GanBatch) -> Tensor:  # [N, z_dim]
        epsilon = counter.normal(self.config.seed, "vae.epsilon", batch.index, mean.shape[1:]).to(mean.dtype)
        return mean + (log_variance / 2).exp() * epsilon

    def _similarity(self, images: Tensor, batch: GanBatch) -> Tensor:  # [N]
        """The mean square difference of D's features at the middle level, relative to their mean square."""
        with torch.no_grad():
            features = self.D.features(batch.images.detach())
            real = features[len(features) // 2]
        found = self.D.features(images)[len(features) // 2]
        return (found - real).square().mean((1, 2, 3)) / real.square().mean((1, 2, 3)).clamp_min(1e-8)


def divergence(
    mean: Tensor,  # [N, z_dim]
    log_variance: Tensor,  # [N, z_dim]
) -> Tensor:  # [N]
    """KL(N(mean, variance) || N(0, 1)), summed over z (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


ENCODERS: dict[str, type[EncodingObjective]] = {"bigan": BiGanObjective, "vaegan": VaeGanObjective}


def objective_class(
    config: TrainConfig,
) -> type[EncodingObjective] | None:
    """The objective of a run that trains an encoder; None: it trains none."""
    return ENCODERS[config.encoder] if config.encoder else ModeObjective if config.mode_weight else None
