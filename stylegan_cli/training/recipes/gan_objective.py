"""The losses of the phases of a GAN: their inputs and regularization.

Every random number is a function of (seed, purpose, global index of the image), see sampling/counter.py. Each loss is a
sum over the images; the engine divides by the size of the whole batch, over all ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...distributed import sum_over_ranks, world_size
from ...layers.statistics import collect_statistics, commit_statistics, discard_statistics
from ...models.discriminator import Discriminator
from ...models.generator import Generator
from ...ops import blur2d, tensor_cores
from ...sampling import counter
from ...sampling.latents import sample_noise
from .. import losses
from ..augment import AdaptiveP, make_augment
from ..config import TrainConfig
from ..guides import Guide
from ..recipe import Batch
from ..regularizers import PathLengthMean, gradient_penalty, interpolate_images, path_lengths, wgan_gp
from ..stats import Means

Collect = Callable[[], AbstractContextManager[None]]  # context of the first mapping: Generator.collect_statistics


@dataclass(frozen=True)
class GanBatch(Batch):
    """The part of a batch that one rank processes at a time."""

    images: Tensor  # [N, C, H, W] real images in [-1, 1]
    labels: Tensor  # [N, c_dim] of the real images
    fake_labels: Tensor  # [N, c_dim] for the generated images
    index: Tensor  # [N] int64, global index of each image since the run began
    held_out: Tensor | None = None  # [N] bool, whether an encoder does not learn from an image
    other_labels: Tensor | None = None  # [N, c_dim] random ones, also where fakes have those of the reals


class Objective:
    suffixes = ("",)  # of the names of its losses among the means

    def __init__(
        self,
        config: TrainConfig,
        G: Generator,
        D: Discriminator,
        means: Means,  # collects losses and scores
        guides: Sequence[Guide] = (),
    ):
        self.config, self.G, self.D, self.means = config, G, D, means
        self.loss, self.guides = losses.LOSSES[config.loss], guides
        weight = next(G.parameters())
        self.path_length = PathLengthMean(config.pl_decay, weight.device, weight.dtype)
        self.half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(config.precision)
        self.augment = make_augment(config)
        self.blur: Tensor | None = None  # [K] taps of a blur before augmentation
        self.gamma_scale = 1.0  # of the weights of R1 and R2, see training/schedule.py
        self.p = AdaptiveP(
            config.aug_p,
            config.ada_target if config.aug == "ada" else None,
            kimg=config.ada_kimg,
            interval=config.ada_interval,
            device=weight.device,
        )

    def advance(self, shown: int) -> None:
        """Called after each step, with the number of images shown."""

    # ------------------------------------------------------------------------------------------ phases

    def generator_main(self, batch: GanBatch) -> Tensor:
        """The generator's loss, with the classification loss if D is a classifier."""
        ws = self._latents(batch, "g", self.G.collect_statistics)
        with self.G.collect_statistics():
            images = self._synthesize(ws, batch, "g")
        seen = self._augmented(images, batch, "g.aug")
        logits, classes = self.D.forward_with_classes(seen, self.fake_condition(batch, "g"), dtype=self.half)
        loss = self._generator_loss(logits, self._real_logits(batch, "g.real.aug"))
        self.means.add("loss/G", loss)
        loss = self._guide_generator(loss, seen)
        total = self._with_codes(loss.sum(), "loss/G", classes, batch)
        return self._with_classification(total, "loss/G aux", (classes, batch.fake_labels))

    def generator_path_length(self, batch: GanBatch) -> Tensor:
        """pl_weight (|J^T y| - a)^2, for one of every pl_batch_shrink images."""
        lengths = self._path_lengths(batch, self.G.collect_statistics)
        if len(lengths) * world_size() == self._path_length_count():  # the batch has one part
            self.path_length.move(lengths.detach().sum(), self._path_length_count())
        penalty = self.path_length.penalty(lengths)
        self.means.add("path/length", lengths)
        self.means.add("path/penalty", penalty)
        shrink = self.config.batch / self._path_length_count()
        return penalty.sum() * (self.config.pl_weight * shrink)

    def discriminator_main(self, batch: GanBatch) -> Tensor:
        """The discriminator's loss on generated and real images, with the classification loss if it is a classifier."""
        return self._discriminator_loss(batch, self._fakes(batch, "d", self.G.collect_statistics))[0]

    def _discriminator_loss(
        self,
        batch: GanBatch,
        fakes: Tensor,  # [N, C, H, W]
    ) -> tuple[Tensor, Tensor, Tensor]:  # [] sum over the images; [N, 1] logits of real and generated images
        with collect_statistics(self.D):
            fake, real, fake_classes, real_classes = self._discriminate_both(fakes, batch)
        loss = self.loss.discriminator(real, fake)
        if self.loss.drifts:
            loss = loss + self.config.drift * losses.drift(real)
        self.p.observe(real - (fake if self.loss.paired else self.loss.boundary or 0))
        self.means.add("loss/D", loss)
        loss = self._guide_discriminator(loss, fake, real, fakes, batch)
        self.means.add("score/fake", fake)
        self.means.add("score/real", real)
        total = self._with_codes(loss.sum(), "loss/D", fake_classes, batch)
        pairs = (real_classes, batch.labels), (fake_classes, batch.fake_labels)
        return self._with_classification(total, "loss/D aux", *pairs), real, fake

    def discriminator_penalties(self, batch: GanBatch) -> Tensor:
        """gamma / 2 R1 + r2_gamma / 2 R2 + gp_weight GP on augmented images, without the terms whose weight is 0."""
        config, terms = self.config, []
        if config.gamma > 0:
            r1 = self._penalty("r1", gradient_penalty, batch.images, self.real_condition(batch), batch)
            terms.append(self.gamma_scale * config.gamma / 2 * r1)
        if config.r2_gamma > 0:
            r2 = self._penalty(
                "r2", gradient_penalty, self._fakes(batch, "r2"), self.fake_condition(batch, "r2"), batch
            )
            terms.append(self.gamma_scale * config.r2_gamma / 2 * r2)
        if config.gp_weight > 0:
            gp = self._penalty("gp", wgan_gp, self._interpolated(batch), batch.labels, batch)
            terms.append(config.gp_weight * gp)
        return sum(terms[1:], terms[0]) if terms else batch.images.new_zeros([])

    def discriminator_with_penalties(self, batch: GanBatch) -> Tensor:
        """Loss and penalties in one phase, for penalties at every step. R1 and R2 are those of the images and passes of
        the loss."""
        config = self.config
        if config.gp_weight > 0:  # between these images
            return self.discriminator_main(batch) + self.discriminator_penalties(batch)
        fakes = self._fakes(batch, "d", self.G.collect_statistics).requires_grad_(config.r2_gamma > 0)
        batch = dataclasses.replace(batch, images=batch.images.detach().requires_grad_(config.gamma > 0))
        total, real, fake = self._discriminator_loss(batch, fakes)
        terms = ("r1", config.gamma, real, batch.images), ("r2", config.r2_gamma, fake, fakes)
        for name, weight, logits, images in terms:
            if weight > 0:
                values = gradient_penalty(logits, images)
                self.means.add(f"{name}/penalty", values)
                total = total + self.gamma_scale * weight / 2 * values.sum()
        return total

    def fake_condition(self, batch: GanBatch, purpose: str) -> Tensor:  # [N, c_dim of D]
        """What D takes beside the images that are generated for a purpose."""
        return batch.fake_labels

    def real_condition(self, batch: GanBatch) -> Tensor:  # [N, c_dim of D]
        """What D takes beside the real images."""
        return batch.labels

    # -------------------------------------------------------- at the beginning and the end of a phase

    def begin_generator_path_length(self, parts: list[GanBatch]) -> None:
        """Move the mean path length if the batch has several parts: the penalty of the first needs the lengths of all.
        The one part of a smaller batch computes them once."""
        if len(parts) > 1:
            total = torch.cat([self._path_lengths(part, differentiable=False) for part in parts]).sum()
            self.path_length.move(total, self._path_length_count())

    def end_main(self) -> None:
        """Update the generator's training statistics with a pass over the batch of all ranks. The mean of w moves with
        every pass of G, as in StyleGAN2-ADA: those of both losses and of the path length."""
        self.G.commit_statistics(self.config.batch, sum_over_ranks)
        commit_statistics(self.D, 2 * self.config.batch, sum_over_ranks)  # of real and generated images

    def end_generator_path_length(self) -> None:
        """Update the generator's training statistics with the part of the batch whose path lengths were taken."""
        self.G.commit_statistics(self._path_length_count(), sum_over_ranks)

    def discard_batch(self) -> None:
        """Drop what an unfinished batch accumulated."""
        for network in (self.G, self.D):
            discard_statistics(network)

    # ------------------------------------------------------------------------------------------- parts

    def _path_length_count(self) -> int:
        """Number of images of a path-length step, over all ranks."""
        parts = self.config.batch // self.config.batch_gpu
        return parts * max(self.config.batch_gpu // self.config.pl_batch_shrink, 1)

    def _path_lengths(
        self, batch: GanBatch, collect: Collect = contextlib.nullcontext, differentiable: bool = True
    ) -> Tensor:  # [max(N // pl_batch_shrink, 1)]
        batch = batch.head(max(len(batch.index) // self.config.pl_batch_shrink, 1))
        ws = self._latents(batch, "pl", collect)
        ws = ws if ws.requires_grad else ws.requires_grad_(True)  # the mapping may have no trainable parameters
        # TF32 in this pass moves numbers across the kinks of activations, which adds a third to the gradients' error;
        # in all that follows it adds nothing.
        with contextlib.nullcontext() if self.config.precision == "tf32" else tensor_cores(False):
            images = self._synthesize(ws, batch, "pl")
        directions = counter.normal(self.config.seed, "pl.direction", batch.index, images.shape[1:]).to(images.dtype)
        return path_lengths(images, ws, directions, differentiable)

    def _latents(
        self,
        batch: GanBatch,
        purpose: str,
        collect: Collect = contextlib.nullcontext,
    ) -> Tensor:  # [N, num_ws, w_dim]
        """Sample and map latents; with probability mixing_prob, a second z is used from a random layer on."""
        seed, index = self.config.seed, batch.index
        dtype = next(self.G.parameters()).dtype
        mixes = self.config.mixing_prob > 0 and self.G.num_ws > 1
        shapes = {f"{purpose}.{name}": (self.config.generator.z_dim,) for name in ("z", "z2")[: 1 + mixes]}
        z = torch.cat(counter.normals(seed, shapes, index)).to(dtype)
        if numbers := self.config.info_continuous:  # the same in both
            z = torch.cat([self._numbers(batch).repeat(1 + mixes, 1), z[:, numbers:]], 1)
        labels = batch.fake_labels
        labels = torch.cat([labels, labels]) if mixes and labels.shape[1] else labels
        ws, *second_ws = self.G.mapping(z, labels).split(len(index))  # both z in one pass
        with collect():
            self.G.mapping.collect(ws[:, 0])
        if not mixes:
            return ws
        (other,) = second_ws
        cut, mix = counter.uniforms(seed, {f"{purpose}.cut": (), f"{purpose}.mix": ()}, index)  # [N] each
        cut = 1 + counter.as_integers(cut, self.G.num_ws - 1)  # 1 ... num_ws - 1
        mixed = mix < self.config.mixing_prob
        layer = torch.arange(self.G.num_ws, device=ws.device)
        second = mixed[:, None] & (layer[None, :] >= cut[:, None])  # [N, num_ws]
        return torch.where(second[:, :, None], other, ws)

    def _numbers(self, batch: GanBatch) -> Tensor:  # [N, info_continuous]
        """The first numbers of z, which D recovers."""
        numbers = counter.normal(self.config.seed, "info.numbers", batch.index, (self.config.info_continuous,))
        return numbers.to(batch.images.dtype)

    def _synthesize(self, ws: Tensor, batch: GanBatch, purpose: str) -> Tensor:  # [N, C, H, W]
        noise = sample_noise(self.G, self.config.seed, f"{purpose}.noise", batch.index)
        return self.G.synthesis(ws, noise=[n.to(ws.dtype) for n in noise], dtype=self.half)

    @torch.no_grad()
    def _fakes(
        self, batch: GanBatch, purpose: str, collect: Collect = contextlib.nullcontext
    ) -> Tensor:  # [N, C, H, W], without gradients for G
        return self._synthesize(self._latents(batch, purpose, collect), batch, purpose)

    def _interpolated(self, batch: GanBatch) -> Tensor:  # [N, C, H, W]
        """Interpolate between real and generated images with the same labels; real ones have no code."""
        same = batch if self.config.info else dataclasses.replace(batch, fake_labels=batch.labels)
        fakes = self._fakes(same, "gp")
        weight = counter.uniform(self.config.seed, "gp.mix", batch.index)
        return interpolate_images(batch.images, fakes, weight.to(fakes.dtype))

    def _penalty(
        self,
        name: str,
        penalty: Callable[[Tensor, Tensor], Tensor],  # logits, images -> [N]
        images: Tensor,  # [N, C, H, W]
        labels: Tensor,  # [N, c_dim]
        batch: GanBatch,
    ) -> Tensor:  # [] sum over the images
        images = images.detach().requires_grad_(True)
        values = penalty(self._discriminate(images, labels, batch, f"{name}.aug")[0], images)
        self.means.add(f"{name}/penalty", values)
        return values.sum()

    def _real_logits(self, batch: GanBatch, purpose: str) -> Tensor | None:  # [N, 1], without gradients
        """D's outputs for the real images, if the loss of generated ones depends on them."""
        if not self.loss.paired:
            return None
        with torch.no_grad():
            return self._discriminate(batch.images, self.real_condition(batch), batch, purpose)[0]

    def _generator_loss(
        self,
        fake: Tensor,  # [N, 1] logits of generated images
        real: Tensor | None,  # [N, 1] logits of real images, if the loss depends on them
    ) -> Tensor:  # [N, 1]
        return self.loss.generator(fake) if real is None else self.loss.generator(fake, real)

    def _guide_generator(
        self,
        loss: Tensor,  # [N, 1] of G
        seen: Tensor,  # [N, C, H, W] augmented generated images
    ) -> Tensor:  # [N, 1] with the guides' terms
        for guide in self.guides:
            term = guide.term(seen)
            self.means.add(f"loss/guide {guide.config.name}", term)
            loss = loss + guide.config.weight * term
        return loss

    def _guide_discriminator(
        self,
        loss: Tensor,  # [N, 1] of D
        logits: Tensor,  # [N, 1] of D for generated images
        real: Tensor,  # [N, 1] of D for real images
        fakes: Tensor,  # [N, C, H, W] the generated images, before augmentation
        batch: GanBatch,
    ) -> Tensor:  # [N, 1] with the guides' terms
        if guides := [guide for guide in self.guides if guide.config.discriminator_weight > 0]:
            seen = self._augmented(fakes, batch, "d.fake.aug")
            for guide in guides:
                wanted = self._generator_loss(logits, real if self.loss.paired else None)
                loss = loss + guide.config.discriminator_weight * guide.reward(seen) * wanted
        return loss

    def _with_classification(
        self,
        total: Tensor,  # [] of the other losses
        name: str,
        *pairs: tuple[Tensor | None, Tensor],  # predictions of D, see `forward_with_classes`; [N, c_dim] labels
    ) -> Tensor:  # [] sum over the images
        if self.D.config.labels != "classifier" or self.config.info:
            return total
        c_dim = self.D.config.c_dim
        terms = [losses.classification(found[:, :c_dim], labels) for found, labels in pairs if found is not None]
        if not terms:
            return total
        loss = sum(terms[1:], terms[0])
        self.means.add(name, loss)
        return total + self.config.aux_weight * loss.sum()

    def _with_codes(
        self,
        total: Tensor,  # [] of the other losses
        name: str,
        predictions: Tensor | None,  # of D for generated images, see `forward_with_classes`
        batch: GanBatch,
    ) -> Tensor:  # [] sum over the images
        """Add how well D recovers the codes of generated images (Chen et al. 2016, equation 6)."""
        values, numbers = self.config.info, self.config.info_continuous
        if predictions is None or not values + numbers:
            return total
        terms = []
        if values:
            terms.append(losses.classification(predictions[:, :values], batch.fake_labels))
            self.means.add(f"{name} code", terms[-1])
        if numbers:
            start = predictions.shape[1] - numbers
            terms.append(losses.code_recovery(predictions[:, start:], self._numbers(batch)))
            self.means.add(f"{name} numbers", terms[-1])
        return total + self.config.info_weight * torch.stack(terms).sum()

    def _discriminate_both(
        self,
        fakes: Tensor,  # [N, C, H, W]
        batch: GanBatch,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # [N, 1] logits of fakes, reals; [N, c_dim] class logits
        """One pass over both, ordered so that no group of the minibatch deviation has images of both kinds; two passes
        where a group is a whole batch, of any size."""
        n, own_group = len(fakes), self.config.discriminator.batch_group
        group = own_group or n
        kinds = (
            (fakes, self.fake_condition(batch, "d"), "d.fake.aug"),
            (batch.images, self.real_condition(batch), "d.real.aug"),
        )
        if group > n or group == n and own_group is None:
            (fake, a), (real, b) = (self._discriminate(x, c, batch, purpose) for x, c, purpose in kinds)
            return fake, real, a, b
        size = (group, n // group)  # image i is member i / groups of group i mod groups
        augmented = [self._augmented(x, batch, purpose).unflatten(0, size) for x, _, purpose in kinds]
        labels = torch.stack([c.unflatten(0, size) for _, c, _ in kinds], 1).flatten(0, 2)
        images = torch.stack(augmented, 1).flatten(0, 2)  # [2 N, C, H, W]
        outputs = self.D.forward_with_classes(images, labels, dtype=self.half)
        fake, real, a, b = (
            None if x is None else x.unflatten(0, (group, 2, n // group))[:, kind].flatten(0, 1)
            for x in outputs
            for kind in (0, 1)
        )
        assert fake is not None and real is not None
        return fake, real, a, b

    def _discriminate(
        self, images: Tensor, labels: Tensor, batch: GanBatch, purpose: str
    ) -> tuple[Tensor, Tensor | None]:  # [N, 1] logits, [N, c_dim] class logits or None
        return self.D.forward_with_classes(self._augmented(images, batch, purpose), labels, dtype=self.half)

    def _augmented(self, images: Tensor, batch: GanBatch, purpose: str) -> Tensor:  # [N, C, H, W]
        if self.blur is not None:
            images = blur2d(images, self.blur)
        return images if self.augment is None else self.augment(images, self.p.p, purpose, batch.index)
