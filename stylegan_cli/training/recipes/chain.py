"""What a GAN learns that is a chain of generators: each stage has a discriminator and phases of its own.

- LAPGAN (Denton et al. 2015, algorithm 1): all stages learn at once. A stage enlarges real images of the size below.
- StackGAN (Zhang et al. 2017, section 3): one after the other. The second enlarges what the first, now frozen, makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layers.statistics import discard_statistics
from ...models.chain.network import Chain, ChainDiscriminator
from ...models.discriminator import Discriminator
from ...models.generator import Generator
from ...models.growing import set_alpha
from ..config import TrainConfig
from ..guides import Guide
from ..recipe import Phase
from ..stats import Means
from .encoding import divergence
from .gan_objective import GanBatch, Objective

PRIOR = 2.0  # weight of the divergence of a condition from the normal distribution, as a mean over its numbers


@dataclass(frozen=True)
class StageBatch(GanBatch):
    below: Tensor | None = None  # [N, C, h, w] real images at the size of the stage before; None: it is the first


class StageMeans(Means):
    """Adds to the means of a run under names that end with the size of a stage."""

    def __init__(self, means: Means, suffix: str):
        super().__init__()
        self.means, self.suffix = means, suffix

    def add(self, name: str, values: Tensor) -> None:
        self.means.add(name + self.suffix, values)


class StageObjective(Objective):
    """The losses of one stage, on images of its size."""

    def __init__(
        self,
        k: int,  # number of the stage
        config: TrainConfig,
        G: Chain,
        D: ChainDiscriminator,
        means: Means,
    ):
        self.k, self.chain, self.stage = k, G.synthesis, G.synthesis.stage(k)
        level, is_last = self.chain.stages[k], k == len(self.chain.stages) - 1
        self.suffix = "" if is_last else f" {level.height}x{level.width}"
        super().__init__(config, G, D.stage(k), StageMeans(means, self.suffix))
        self.in_turn, length = config.generator.learns_in_turn, round(config.stage_kimg * 1000)
        self.start, self.stop = k * length, None if is_last or not length else (k + 1) * length

    def phases(
        self,
        phases: list[Phase],  # of a GAN with this objective
    ) -> list[Phase]:
        """The phases on images of this stage's size, in its part of the run."""

        def of_stage(phase: Phase) -> Phase:
            return dataclasses.replace(
                phase,
                name=phase.name + self.suffix,
                loss=lambda batch: phase.loss(self.batch_of_stage(batch)),
                start=self.start,
                stop=self.stop,
            )

        return [of_stage(phase) for phase in phases]

    def batch_of_stage(self, batch: GanBatch) -> StageBatch:
        """Real images at the sizes of this stage and the one before. What enlarges real images gets their labels."""
        images, below = self.chain.shrink(batch.images, self.k), None
        values = dict(vars(batch))
        if self.k and not self.in_turn:
            below = self.chain.shrink(images, self.k - 1)
            values["fake_labels"] = batch.labels
        return StageBatch(**values | {"images": images, "below": below})

    def generator_main(self, batch: GanBatch) -> Tensor:
        """The generator's loss, with the divergence of conditioning augmentation (Zhang et al. 2017, equation 2)."""
        total = super().generator_main(batch)
        moments = self.stage.posterior(batch.fake_labels) if batch.fake_labels.shape[1] else None
        if moments is None:
            return total
        prior = divergence(*moments) / moments[0].shape[1]
        self.means.add("loss/G prior", prior)
        return total + PRIOR * prior.sum()

    def _discriminator_loss(self, batch: GanBatch, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a stage that augments its condition, half is about real images with the labels of others (section 3.4, the
        matching-aware discriminator of Reed et al. 2016); a label that happens to be right counts as a generated
        image."""
        total, real, fake = super()._discriminator_loss(batch, fakes)
        if not (self.in_turn and batch.labels.shape[1]):
            return total, real, fake
        assert (others := batch.other_labels) is not None
        logits, _ = self._discriminate(batch.images, others, batch, "d.wrong.aug")
        wrong = (batch.labels != others).any(1, keepdim=True)
        loss = self.loss.discriminator(real, torch.where(wrong, logits, fake))
        self.means.add("loss/D labels", loss)
        return (total + loss.sum()) / 2, real, fake

    def _synthesize(self, ws: Tensor, batch: GanBatch, purpose: str) -> Tensor:  # [N, C, H, W]
        if not self.in_turn:
            assert isinstance(batch, StageBatch)
            return self.stage(ws[:, self.k], batch.below)
        with torch.no_grad():  # the stages before are frozen
            below = self.chain.image(ws, self.k - 1) if self.k else None
        return self.stage(ws[:, self.k], below)

    def discard_batch(self) -> None:
        discard_statistics(self.D)


class ChainObjective:
    """The objectives of all stages, and what they share."""

    half: torch.dtype | None = None  # these networks run in full precision

    def __init__(self, config: TrainConfig, G: Generator, D: Discriminator, means: Means, guides: Sequence[Guide] = ()):
        assert isinstance(G, Chain) and isinstance(D, ChainDiscriminator)
        self.G, numbers = G, range(len(G.synthesis.stages))
        self.stages = [StageObjective(k, config, G, D, means) for k in numbers]
        self.p, self.path_length = self.stages[0].p, self.stages[0].path_length
        for stage in self.stages:
            stage.p = self.p
        self.suffixes = [stage.suffix for stage in self.stages]
        self.advance(0)

    def advance(
        self,
        shown: int,  # images
    ) -> None:
        """Show the last stage's images as soon as it is trained, those of the one before until then."""
        set_alpha(self.G, float(shown > self.stages[-1].start or not self.stages[-1].start))

    def discard_batch(self) -> None:
        """Drop what an unfinished batch accumulated."""
        discard_statistics(self.G)
        for stage in self.stages:
            stage.discard_batch()

    @property
    def config(self) -> TrainConfig:
        return self.stages[-1].config

    @config.setter
    def config(self, config: TrainConfig) -> None:
        for stage in self.stages:
            stage.config = config

    @property
    def gamma_scale(self) -> float:
        return self.stages[-1].gamma_scale

    @gamma_scale.setter
    def gamma_scale(self, scale: float) -> None:
        for stage in self.stages:
            stage.gamma_scale = scale
