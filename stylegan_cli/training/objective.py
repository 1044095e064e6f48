"""The four phases of a StyleGAN2 step: what each network is trained on, and when it is regularised.

Every random number comes from (seed, purpose, global index of the picture), see sampling/counter.py. Each phase
returns the sum over its pictures; the loop divides by the pictures of the whole batch, over all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..distributed import sum_over_ranks
from ..sampling import counter
from ..sampling.latents import draw_noise
from . import losses
from .augment import AdaptiveP, Augment
from .guard import finite_or
from .regularizers import PathLengthMean, path_lengths, r1_penalty
from .stats import Means


@dataclass(frozen=True)
class Batch:
    """The part of a step's pictures that one rank looks at at a time."""

    images: Tensor  # [N, C, H, W] real pictures in [-1, 1]
    labels: Tensor  # [N, c_dim] of the real pictures
    fake_labels: Tensor  # [N, c_dim] for the generated pictures
    index: Tensor  # [N] int64, global index of each picture since the run began

    def split(self, size: int) -> list[Batch]:
        """Parts of `size` pictures, dealt round-robin: minibatch-deviation groups stay as they are."""
        parts = len(self.index) // size
        fields = (self.images, self.labels, self.fake_labels, self.index)
        return [Batch(*(field[k::parts] for field in fields)) for k in range(parts)]

    def take_over(self, other: Batch) -> Batch:
        """Copy another batch's pictures to where these are."""
        for name in ("images", "labels", "fake_labels", "index"):
            getattr(self, name).copy_(getattr(other, name))
        return self

    def head(self, size: int) -> Batch:
        return Batch(self.images[:size], self.labels[:size], self.fake_labels[:size], self.index[:size])


class Objective:
    def __init__(
        self,
        config: TrainConfig,
        G: nn.Module,
        D: nn.Module,
        means: Means,  # gets losses and scores
    ):
        self.config, self.G, self.D, self.means = config, G, D, means
        weight = next(G.parameters())
        self.path_length = PathLengthMean(config.pl_decay, weight.device, weight.dtype)
        self.half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(config.precision)
        self.augment = augmentation(config)
        self.p = AdaptiveP(
            config.aug_p,
            config.ada_target if config.aug == "ada" else None,
            kimg=config.ada_kimg,
            interval=config.ada_interval,
            device=weight.device,
        )
        # Sums over the parts of a batch, kept in place: CUDA graphs know their address.
        self._w_sum = weight.new_zeros(config.generator.w_dim)
        self._length_sum = weight.new_zeros([])

    # ------------------------------------------------------------------------------------------ phases

    def generator_main(self, batch: Batch) -> Tensor:
        """Non-saturating logistic loss of the generator."""
        ws = self._latents(batch, "g")
        self._w_sum.add_(ws[:, 0].detach().sum(0))
        logits = self._judge(self._draw(ws, batch, "g"), batch.fake_labels, batch, "g.aug")
        loss = losses.generator_logistic(logits)
        self.means.add("loss/G", loss)
        return loss.sum()

    def generator_path_length(self, batch: Batch) -> Tensor:
        """pl_weight (|J^T y| - a)^2, on the first of every pl_batch_shrink pictures."""
        batch = batch.head(max(len(batch.index) // self.config.pl_batch_shrink, 1))
        ws = self._latents(batch, "pl")
        images = self._draw(ws, batch, "pl")
        directions = counter.normal(self.config.seed, "pl.direction", batch.index, images.shape[1:]).to(images.dtype)
        lengths = path_lengths(images, ws, directions)
        self._length_sum.add_(lengths.detach().sum())
        penalty = self.path_length.penalty(lengths)
        self.means.add("path/length", lengths)
        self.means.add("path/penalty", penalty)
        shrink = self.config.batch / self._path_length_count()
        return penalty.sum() * (self.config.pl_weight * shrink)

    def discriminator_main(self, batch: Batch) -> Tensor:
        """Logistic loss of the discriminator on generated and real pictures."""
        with torch.no_grad():
            fakes = self._draw(self._latents(batch, "d"), batch, "d")
        fake = self._judge(fakes, batch.fake_labels, batch, "d.fake.aug")
        real = self._judge(batch.images, batch.labels, batch, "d.real.aug")
        self.p.observe(real)
        loss = losses.discriminator_logistic(real, fake)
        self.means.add("loss/D", loss)
        self.means.add("score/fake", fake)
        self.means.add("score/real", real)
        return loss.sum()

    def discriminator_r1(self, batch: Batch) -> Tensor:
        """gamma / 2 ||dD/dx||^2 at the real pictures, D seeing them augmented."""
        images = batch.images.detach().requires_grad_(True)
        penalty = r1_penalty(self._judge(images, batch.labels, batch, "r1.aug"), images)
        self.means.add("r1/penalty", penalty)
        return penalty.sum() * (self.config.gamma / 2)

    # ----------------------------------------------------------------------- after a phase's last batch

    def end_generator_main(self) -> None:
        """The running mean of w follows the batch of all ranks."""
        mapping = self.G.mapping
        w_mean = (sum_over_ranks(self._w_sum) / self.config.batch).to(mapping.w_avg.dtype)
        mapping.track_w_avg(finite_or(w_mean, mapping.w_avg))
        self._w_sum.zero_()

    def end_generator_path_length(self) -> None:
        self.path_length.update(self._length_sum, self._path_length_count())
        self._length_sum.zero_()

    def forget(self) -> None:
        """Drop what a batch that will not be finished left behind."""
        for total in (self._w_sum, self._length_sum):
            total.zero_()
        self.means.clear()

    # ------------------------------------------------------------------------------------------- parts

    def _path_length_count(self) -> int:
        """Pictures of a path-length step over all ranks."""
        parts = self.config.batch // self.config.batch_gpu
        return parts * max(self.config.batch_gpu // self.config.pl_batch_shrink, 1)

    def _latents(self, batch: Batch, purpose: str) -> Tensor:  # [N, num_ws, w_dim]
        """Mapped latents; with probability mixing_prob those from a random layer on come from a second z."""
        seed, index = self.config.seed, batch.index
        kind = next(self.G.parameters()).dtype
        shape = (self.config.generator.z_dim,)
        ws = self.G.mapping(counter.normal(seed, f"{purpose}.z", index, shape).to(kind), batch.fake_labels)
        if self.config.mixing_prob == 0:
            return ws
        other = self.G.mapping(counter.normal(seed, f"{purpose}.z2", index, shape).to(kind), batch.fake_labels)
        cut = 1 + counter.integers(seed, f"{purpose}.cut", index, self.G.num_ws - 1)  # [N] 1 ... num_ws - 1
        mixed = counter.uniform(seed, f"{purpose}.mix", index) < self.config.mixing_prob  # [N]
        layer = torch.arange(self.G.num_ws, device=ws.device)
        second = mixed[:, None] & (layer[None, :] >= cut[:, None])  # [N, num_ws]
        return torch.where(second[:, :, None], other, ws)

    def _draw(self, ws: Tensor, batch: Batch, purpose: str) -> Tensor:  # [N, C, H, W]
        noise = draw_noise(self.G, self.config.seed, f"{purpose}.noise", batch.index)
        return self.G.synthesis(ws, noise=[n.to(ws.dtype) for n in noise], dtype=self.half)

    def _judge(self, images: Tensor, labels: Tensor, batch: Batch, purpose: str) -> Tensor:  # [N, 1] logits
        if self.augment is not None:
            images = self.augment(images, self.p.p, purpose, batch.index)
        return self.D(images, labels, dtype=self.half)


def augmentation(
    config: TrainConfig,
) -> Augment | None:
    """What D's pictures go through; None: nothing."""
    if config.aug == "noaug":
        return None
    return Augment("diffaug" if config.aug == "diffaug" else config.augpipe, config.seed)
