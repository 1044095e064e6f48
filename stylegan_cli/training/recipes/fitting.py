"""What recipes share that fit a network to the images of a dataset, and measure it on images that are held out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import distributed
from ...data.dataset import Dataset
from ...data.pairs import PairedDataset
from ...data.sampler import Loader, Sampler
from ...errors import SganError
from ...sampling import counter
from ..encoder_config import EncoderRunConfig
from ..generated_pairs import GeneratedPairs
from ..optimizer import FusedAdam
from ..pix2pix_config import Pix2PixRunConfig
from ..recipe import Batch, Recipe

_WARM_UP = 1000  # images in which the learning rate rises


@dataclass(frozen=True)
class ImageBatch(Batch):
    images: Tensor  # [N, C, H, W] in [-1, 1]; of pairs, the other image has further channels
    labels: Tensor  # [N, c_dim] of the images
    index: Tensor  # [N] int64, global index of each image since the run began


def split(
    seed: int,
    count: int,  # images
    held_out: int,
) -> tuple[Tensor, Tensor]:  # int64 indices of the images that are held out, and of those to train on
    order = counter.uniform(seed, "encoder.split", torch.arange(count)).argsort()
    return order[:held_out], order[held_out:]


class Rate:
    """Learning rates that rise for a moment, and then fall to 0 as a cosine until the end of the run."""

    def __init__(self, kimg: float, optimizers: list[FusedAdam]):
        self.end, self.shown, self.factor, self.optimizers = kimg * 1000, 0, 1.0, optimizers
        self.bases = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self.apply(1.0)

    def apply(
        self,
        factor: float,  # of all rates, from now on
    ) -> None:
        self.factor = factor
        for optimizer, bases in zip(self.optimizers, self.bases, strict=True):  # a loaded one has other groups
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * self._curve() * factor

    def step(self, batch: int) -> None:
        self.shown += batch
        self.apply(self.factor)

    def _curve(self) -> float:
        return min((self.shown + 1) / _WARM_UP, 1) * (0.5 + 0.5 * math.cos(math.pi * min(self.shown / self.end, 1)))

    def state_dict(self) -> dict[str, Any]:
        return {"shown": self.shown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shown = state["shown"]


class FittingRecipe(Recipe):
    """Shows all images but those that are held out, in a new order each epoch."""

    memory_advice = "Use smaller images: sgan data pack --size."  # if one image at a time is too much
    rate: Rate  # of all optimizers

    def __init__(
        self,
        config: EncoderRunConfig | Pix2PixRunConfig,
        dataset: Dataset | PairedDataset | GeneratedPairs,
        device: torch.device | str,
    ):
        super().__init__(config.batch, config.batch_gpu, torch.device(device))
        self.seed, self.dataset = config.seed, dataset
        self.held_out, train = split(config.seed, len(dataset), config.held_out)
        sampler = Sampler(
            len(train), seed=config.seed, rank=distributed.rank(), world=distributed.world_size(), chosen=train.numpy()
        )
        self.loader = Loader(dataset, sampler, config.batch, pin=self.device.type == "cuda")

    def next_batch(self) -> ImageBatch:
        images, labels, index = (t.to(self.device, non_blocking=True) for t in self.loader.next())
        images = images.float() / 127.5 - 1
        if self.dataset.spec.mirror:
            flip = counter.uniform(self.seed, "mirror", index) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        return ImageBatch(images, labels, index)

    def after_step(self, shown: int) -> None:
        self.rate.step(self.batch)

    def apply_settings(self, rollbacks: int) -> None:
        self.rate.apply(0.5**rollbacks)

    def halve_batch_gpu(self) -> None:
        if self.batch_gpu == 1:
            raise SganError("Out of memory with one image at a time on one rank.", hint=self.memory_advice)
        fewer = range(self.batch_gpu // 2, 0, -1)
        self.batch_gpu = next(size for size in fewer if self.batch_gpu % size == 0)

    def close(self) -> None:
        self.loader.close()

    def measured(
        self,
        count: int | None,  # number of images; None: all that are held out
    ) -> tuple[Tensor, ...]:  # int64 indices of the images, in parts
        """The held-out images; without, the first ones of the dataset."""
        chosen = self.held_out if len(self.held_out) else torch.arange(min(len(self.dataset), 64))
        return chosen[:count].split(max(self.batch_gpu, 1))
