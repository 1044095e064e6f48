"""A lazy stream of images for a detector, from a dataset or from a model: uint8 [n, 3, H, W].

Image i of a stream does not depend on the batch size or the rank; it belongs to rank i mod ranks. Gray images are
converted to RGB, images with alpha are composited onto white.

Images are generated as in NVIDIA's implementations, which pass no options to the generator: from z ~ N(0, 1), with the
class of a random image of the dataset, with random noise for each image (their default noise_mode), in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from ..data.dataset import Dataset
from ..data.images import to_rgb, to_uint8
from ..errors import SganError
from ..models.frozen import frozen_synthesis
from ..models.generator import Generator
from ..sampling import counter
from ..sampling.labels import sample_labels
from ..sampling.latents import sample_noise


class ImageSource(Protocol):
    """Images by index in the stream."""

    def __call__(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor: ...  # uint8 [n, 3, H, W]

    def check(self) -> None: ...  # raises SganError on all ranks if any rank had an invalid image


def stream(
    source: ImageSource,
    count: int,  # number of images on all ranks
    batch: int,  # images at a time
    ahead: bool = False,  # whether to prepare the next batch in a thread, for images that are read and decoded
) -> Iterator[tuple[Tensor, Tensor]]:  # indices [n] int64 on the CPU, images [n, 3, H, W]
    """Yield this rank's share of the images, in increasing order."""
    batches = torch.arange(distributed.rank(), count, distributed.world_size()).split(batch)
    if not ahead:
        yield from ((index, source(index)) for index in batches)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="images") as thread:
        future = thread.submit(source, batches[0])
        for i, index in enumerate(batches):
            images = future.result()
            if i + 1 < len(batches):
                future = thread.submit(source, batches[i + 1])
            yield index, images


class Reals:
    """The images of a dataset in a fixed shuffled order, so that the first images are a fair sample.

    With mirroring, every image occurs twice, once flipped.
    """

    def __init__(
        self,
        dataset: Dataset,
        mirror: bool,
        device: torch.device,
    ):
        self.dataset, self.device = dataset, device
        total = len(dataset) * (2 if mirror else 1)
        bits = np.random.Philox(key=[0, total]).random_raw(total)  # which NumPy guarantees not to change
        self.order = torch.from_numpy(np.argsort(bits, kind="stable"))

    def __call__(self, index: Tensor) -> Tensor:
        chosen = self.order[index]
        images = self.dataset.images(chosen % len(self.dataset))
        flipped = chosen >= len(self.dataset)
        images[flipped] = images[flipped].flip(3)
        return to_rgb(images.to(self.device))

    def check(self) -> None:
        """Do nothing: pixels in uint8 are always finite."""


class ModelSamples:
    """Base class of what is generated with a model, by index. Counts images that are not finite."""

    def __init__(
        self,
        G: Generator,
        labeled: Dataset | None,  # dataset to sample labels from; None: unconditional
        device: torch.device,
        seed: int = 0,
        truncation_psi: float = 1.0,
    ):
        self.G, self.labeled, self.device, self.seed, self.psi = G, labeled, device, seed, truncation_psi
        self._synthesis = frozen_synthesis(G)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # not finite, all

    def labels(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor | None:  # [n, c_dim] float32
        """Sample the label of a random image of the dataset for each image, or a code."""
        if self.labeled is None:
            return sample_labels(self.G.label_space, self.seed, "metrics.class", index)
        chosen = counter.integers(self.seed, "metrics.class", index, len(self.labeled))
        return self.labeled.labels(chosen.cpu()).to(index.device)

    def noise(
        self,
        index: Tensor,  # [n] int64
    ) -> list[Tensor]:  # [n, 1, h, w] for each layer with noise
        return sample_noise(self.G, self.seed, "metrics.noise", index)

    def synthesize(
        self,
        ws: Tensor,  # [n, num_ws, w_dim]
        noise: list[Tensor],  # [n, 1, h, w] for each layer with noise
        **transform: Tensor,  # of the input
    ) -> Tensor:  # [n, C, H, W]
        images = self._synthesis(ws, noise=noise, **transform)
        self._counts[0] += (~images.isfinite().flatten(1).all(1)).sum()
        self._counts[1] += len(images)
        return images

    def check(self) -> None:
        """Raise SganError on all ranks if any rank had an image that is not finite."""
        invalid, total = distributed.sum_over_ranks(self._counts.clone()).tolist()
        if invalid:
            raise SganError(
                f"{invalid} of {total} generated images have pixels that are not finite.",
                hint="Training had diverged by this snapshot; measure an earlier one.",
            )


class Fakes(ModelSamples):
    """Images generated with a model."""

    def __call__(self, index: Tensor) -> Tensor:
        index = index.to(self.device)
        z = counter.normal(self.seed, "metrics.z", index, (self.G.config.z_dim,))
        ws = self.G.mapping(z, self.labels(index), self.psi)
        return to_rgb(to_uint8(self.synthesize(ws, self.noise(index))))
