"""The recipe of encoders: a network that predicts the latents of images, for a generator that does not change.

E            pixels, features and latents of real images: G(E(x)) looks like x
E latents    generated images, whose latents are known
critic       with a critic weight: separates predicted latents from those of the mapping network (Tov et al. 2021, e4e,
             section 4.2), so that they remain editable

With skips, E also trains a copy of the generator with skips; two more phases train its discriminator, see adversary.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.dataset import Dataset
from ...data.pairs import PairedDataset
from ...detectors.distances import Loss
from ...layers import EqualLinear, to_memory_format
from ...models.discriminator import Discriminator
from ...models.encoders.passes import encode, encode_in_passes
from ...models.encoders.pyramid import PyramidEncoder
from ...models.encoders.skips import SkipSynthesis
from ...models.generator import Generator
from ...sampling import counter
from ...sampling.degrade import make_task
from ...sampling.labels import sample_labels
from ...sampling.latents import sample_noise
from ...sampling.regions import class_levels
from ..ema import EMA
from ..encoder_config import EncoderRunConfig
from ..generated_pairs import GeneratedPairs
from ..optimizer import FusedAdam
from ..recipe import Phase
from .adversary import Adversary
from .fitting import FittingRecipe, ImageBatch, Rate

_SAMPLES = 10_000  # latents from which the deviation of W is computed
_R1 = 5.0  # weight of the critic's gradient penalty


class LatentCritic(nn.Module):
    """Four layers that tell latents of the mapping network from predicted ones (Tov et al. 2021, section 4.2)."""

    def __init__(self, w_dim: int):
        super().__init__()
        self.layers = nn.Sequential(*(EqualLinear(w_dim, w_dim, act="lrelu") for _ in range(3)), EqualLinear(w_dim, 1))

    def forward(
        self,
        w: Tensor,  # [N, w_dim], of mean 0 and deviation 1
    ) -> Tensor:  # [N, 1] logits
        return self.layers(w)


class EncoderRecipe(FittingRecipe):
    divergence_advice = "Start a new run with a lower --lr."
    memory_advice = "Use --loss pixel."

    def __init__(
        self,
        config: EncoderRunConfig,
        dataset: Dataset | PairedDataset | GeneratedPairs,
        G: Generator,
        D: Discriminator | None,  # its weights are the start; None: random ones
        loss: Loss,
        device: torch.device | str = "cpu",
        identity: Loss | None = None,  # a further distance, with a config that has one
    ):
        super().__init__(config, dataset, device)
        self.config, self.G, self.loss, self.identity = config, G, loss, identity
        self.segmenter = dataset.segmenter if isinstance(dataset, GeneratedPairs) else None
        self.task = make_task(config.task, config.task_options)
        torch.manual_seed(config.seed)  # the same initial weights on all ranks
        self.E = to_memory_format(PyramidEncoder(config.encoder)).to(self.device).requires_grad_(False)
        if D is not None:
            self.E.start_from(D)
        self.E.latent_avg.copy_(G.mapping.w_avg)
        self.E.deviation.copy_((self._sample_w(torch.arange(_SAMPLES)) - G.mapping.w_avg).square().mean(0).sqrt())
        self.ema = EMA(self.E, config.ema_kimg * 1000, rampup=0.1)
        self.networks = {"E": self.E, "E_ema": self.ema.network}
        optimizer = FusedAdam(list(self.E.parameters()), lr=config.lr, betas=config.betas)
        self.phases = [Phase("E", self.E, optimizer, self._reconstruct)]
        self.skips = self.skips_ema = self.adversary = None
        if config.latent_weight and not self.task.needs_source:
            interval = config.latent_interval
            self.phases.append(Phase("E latents", self.E, optimizer, self._predict_known, interval))
        optimizers = [optimizer]
        if config.skips:
            self._add_skips(optimizers, D)
        if config.critic_weight:
            self.critic = LatentCritic(config.encoder.w_dim).to(self.device).requires_grad_(False)
            optimizers.append(FusedAdam(list(self.critic.parameters()), lr=config.lr / 5, betas=(0.0, 0.99)))
            self.networks["critic"] = self.critic
            self.phases.append(Phase("critic", self.critic, optimizers[-1], self._criticize))
        self.rate = Rate(config.kimg, optimizers)
        self.parts = {"data": self.loader, "rate": self.rate}

    def _add_skips(self, optimizers: list[FusedAdam], D: Discriminator | None) -> None:
        """Train a copy of the generator with skips beside E, and one of D against it."""
        config, (optimizer,) = self.config, optimizers
        skips = SkipSynthesis(config.encoder, self.G.synthesis)
        self.skips = to_memory_format(skips).to(self.device).requires_grad_(False)
        self.skips_ema = EMA(self.skips, config.ema_kimg * 1000, rampup=0.1)
        self.networks |= {"skips": self.skips, "skips_ema": self.skips_ema.network}
        optimizer.add_param_group({"params": [*skips.convs.parameters()]})
        optimizer.add_param_group({"params": [*skips.synthesis.parameters()], "lr": config.lr * config.tuning})
        both = nn.ModuleList([self.E, self.skips])
        self.phases = [dataclasses.replace(phase, network=both) for phase in self.phases]
        if D is not None and config.adversarial_weight:
            self.adversary = Adversary(config, D, self.means)
            self.networks["D"] = self.adversary.D
            self.phases += self.adversary.phases(lambda batch: list(self._reconstructions(batch))[-1][1])
            optimizers.append(self.adversary.optimizer)

    # ------------------------------------------------------------------------------------------ phases

    def _reconstruct(self, batch: ImageBatch) -> Tensor:  # [] sum over the images
        """Distances between an image and its reconstruction, after every pass."""
        config, total, last = self.config, batch.images.new_zeros(()), {}
        targets = batch.images[:, : self.G.config.channels]
        with torch.no_grad():
            features = self.loss.features(targets)
            person = self.identity.features(targets) if self.identity else []
            judged = self.task.judged(targets)
        for ws, images, classes in self._reconstructions(batch):
            pixels = (images - targets).square().mean((1, 2, 3))
            distance = self.loss.distance(self.loss.features(images), features)
            spread = self._distance(ws, ws.mean(1, keepdim=True))
            losses = self.task.fidelity * (config.pixel_weight * pixels + config.loss_weight * distance)
            losses = losses + config.spread_weight * spread
            if config.critic_weight:
                logits = self.critic(self._normalized(ws).flatten(0, 1)).reshape(len(ws), -1)
                losses = losses + config.critic_weight * F.softplus(-logits).mean(1)
            last = {"pixel": pixels, config.loss: distance, "spread": spread}
            if self.identity:
                last["identity"] = self.identity.distance(self.identity.features(images), person)
                losses = losses + config.identity_weight * last["identity"]
            if config.skips:
                last["absolute"] = (images - targets).abs().mean((1, 2, 3))
                losses = losses + self.task.fidelity * config.absolute_weight * last["absolute"]
            if self.adversary is not None:
                last["G"] = self.adversary.generator(images, batch.labels)
                losses = losses + config.adversarial_weight * last["G"]
            found = self.task.judged(images)
            if judged is not None and found is not None:
                last["judged"] = (found - judged).square().mean((1, 2, 3))
                losses = losses + config.judged_weight * last["judged"]
            if classes is not None:
                wrong = F.cross_entropy(classes, class_levels(batch.images), reduction="none")
                last["segmenter"] = wrong.mean((1, 2))
                losses = losses + config.segmenter_weight * last["segmenter"]
            total = total + losses.sum()
        for name, values in last.items():
            self.means.add(f"loss/{name}", values)
        return total / config.encoder.passes

    def _predict_known(self, batch: ImageBatch) -> Tensor:  # [] sum over the images
        """Distances between the latents of a generated image and their prediction."""
        with torch.no_grad():
            known = self._sample_ws(batch.index)
            noise = sample_noise(self.G, self.config.seed, "encoder.noise", batch.index)
            images = self.G.synthesis(known, noise=noise).clamp(-1, 1)
            inputs = self.task(images, self.config.seed, batch.index)
        errors = [self._distance(ws, known) for ws in self._encode(inputs)]
        self.means.add("loss/latent", errors[-1])
        return self.config.latent_weight * torch.stack(errors).mean(0).sum()

    def _criticize(self, batch: ImageBatch) -> Tensor:  # [] sum over the images
        """The logistic loss of the critic, with R1."""
        with torch.no_grad():
            fake = self._normalized(self._encode(self.task(batch.images, self.config.seed, batch.index))[-1])
            real = self._normalized(self._sample_w(batch.index, "encoder.critic")[:, None])[:, 0]
        with torch.enable_grad():
            real.requires_grad_(True)
            logits = self.critic(real)
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        wrong = F.softplus(self.critic(fake.flatten(0, 1))).reshape(len(fake), -1).mean(1)
        losses = F.softplus(-logits)[:, 0] + wrong + _R1 * gradient.square().sum(1)
        self.means.add("loss/critic", losses)
        return losses.sum()

    def _encode(self, inputs: Tensor, features: list[list[Tensor]] | None = None) -> list[Tensor]:
        """Latents [N, num_ws, w_dim] after each pass. With skips, `features` receives those of each."""
        passes, skips = self.config.encoder.passes, self.skips
        if skips is None:
            return encode_in_passes(self.E, inputs, self.G.synthesis, passes)
        found = [] if features is None else features
        return encode_in_passes(self.E, inputs, lambda ws: skips(ws, found[-1] if found else ()), passes, found)

    def _reconstructions(self, batch: ImageBatch) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Latents, images and, with a segmenter, logits of their classes after each pass. Skips could copy what is
        given, and leave nothing to learn but that."""
        features: list[list[Tensor]] = []
        inputs = self.task(batch.images, self.config.seed, batch.index)
        for k, ws in enumerate(self._encode(inputs, features)):
            if self.segmenter is not None:
                yield ws, *self.segmenter.read(self.G.synthesis, ws)
            elif self.skips is None:
                yield ws, self.G.synthesis(ws), None
            else:
                yield ws, self.task.completed(self.skips(ws, features[k]), inputs), None

    def _sample_ws(self, index: Tensor) -> Tensor:  # [N] -> [N, num_ws, w_dim]
        """Latents of the mapping network, half of them mixed from two."""
        first, second = (self._sample_w(index, f"encoder.z{k}")[:, None] for k in (0, 1))
        num = self.G.num_ws
        cut = counter.integers(self.config.seed, "encoder.cut", index, 2 * num)[:, None]  # num and more: not mixed
        return torch.where((torch.arange(num, device=index.device) < cut)[:, :, None], first, second)

    def _sample_w(self, index: Tensor, purpose: str = "encoder.z") -> Tensor:  # [N] -> [N, w_dim]
        index = index.to(self.device)
        z_dim = self.G.config.z_dim
        z = F.normalize(counter.normal(self.config.seed, purpose, index, (z_dim,)), dim=1) * math.sqrt(z_dim)
        labels = sample_labels(self.G.label_space, self.config.seed, f"{purpose}.c", index)
        with torch.no_grad():
            parts = [None] * len(z.split(1000)) if labels is None else labels.split(1000)
            return torch.cat([self.G.mapping(a, b)[:, 0] for a, b in zip(z.split(1000), parts, strict=True)])

    def _normalized(self, ws: Tensor) -> Tensor:  # [N, K, w_dim]
        return (ws - self.G.mapping.w_avg) / self.E.deviation.clamp_min(1e-8)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:  # [N, num_ws, w_dim] -> [N], 1 for the deviation of W
        return (a - b).square().sum(2).mean(1) / self.E.deviation.square().sum()

    # ------------------------------------------------------------------------------------------ engine

    def after_step(self, shown: int) -> None:
        self.ema.update(self.E, shown, self.batch)
        if self.skips is not None and self.skips_ema is not None:
            self.skips_ema.update(self.skips, shown, self.batch)
        super().after_step(shown)

    # ------------------------------------------------------------------------------------- measurement

    @torch.no_grad()
    def reconstructions(
        self,
        count: int | None = None,  # number of images; None: all that are held out
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Held-out images, what the encoder sees of them, their latents and reconstructions, in batches."""
        skips = None if self.skips_ema is None else cast(SkipSynthesis, self.skips_ema.network)
        for part in self.measured(count):
            images = self.dataset.images(part).to(self.device).float() / 127.5 - 1
            inputs = self.task(images, self.config.seed, part.to(self.device))
            features: list[list[Tensor]] = []
            ws = encode(self.ema.network, self.G, inputs, skips=skips, features=features)
            found = self.G.synthesis(ws) if skips is None else skips(ws, features[-1])
            yield images[:, : self.G.config.channels], inputs, ws, self.task.completed(found, inputs)
