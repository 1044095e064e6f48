"""One lazy stream of images, from a data set or from a model, that a detector can look at: uint8 [n, 3, H, W].

Image i of a stream is the same in any batch and on any rank; it goes to rank i mod ranks. Gray images are repeated
to RGB, images with alpha are laid on white.

A model's images are drawn as in the field's implementations, which hand no options to the generator: from
z ~ N(0, 1), with the class of a random image of the data set, with random noise, each image its own (NVIDIA's
noise_mode is 'random' where nothing is said), in float32.
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
from ..models.generator import Generator
from ..sampling import counter
from ..sampling.latents import sample_noise


class ImageSource(Protocol):
    """ImageSource by their places in the stream."""

    def __call__(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor: ...  # uint8 [n, 3, H, W]

    def check(self) -> None: ...  # raises SganError on every rank if there was a broken one on any


def stream(
    source: ImageSource,
    count: int,  # images in all
    batch: int,  # at a time
    ahead: bool = False,  # prepare the next batch in a thread: where the disk and the decoder are what takes time
) -> Iterator[tuple[Tensor, Tensor]]:  # places [n] int64 on the CPU, images [n, 3, H, W]
    """This rank's share of the images, in rising order."""
    places = torch.arange(distributed.rank(), count, distributed.world_size()).split(batch)
    if not ahead:
        yield from ((index, source(index)) for index in places)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="images") as thread:
        following = thread.submit(source, places[0])
        for i, index in enumerate(places):
            images = following.result()
            if i + 1 < len(places):
                following = thread.submit(source, places[i + 1])
            yield index, images


class Reals:
    """The images of a data set in an order shuffled once and for all, so that the first so many are a fair sample.

    Mirrored, the set has every image twice, once flipped.
    """

    def __init__(
        self,
        dataset: Dataset,
        mirror: bool,
        device: torch.device,
    ):
        self.dataset, self.device = dataset, device
        total = len(dataset) * (2 if mirror else 1)
        bits = np.random.Philox(key=[0, total]).random_raw(total)  # which no numpy release may change
        self.order = torch.from_numpy(np.argsort(bits, kind="stable"))

    def __call__(self, index: Tensor) -> Tensor:
        chosen = self.order[index]
        images = self.dataset.images(chosen % len(self.dataset))
        flipped = chosen >= len(self.dataset)
        images[flipped] = images[flipped].flip(3)
        return to_rgb(images.to(self.device))

    def check(self) -> None:
        """Files hold numbers, always."""


class Drawn:
    """What is drawn with a model, by places. Counts the images that hold a number which is not finite."""

    def __init__(
        self,
        G: Generator,
        classes: Tensor | None,  # [M] int64, of all images of the data set; None: the model has none
        device: torch.device,
        seed: int = 0,
        truncation_psi: float = 1.0,
    ):
        self.G, self.classes, self.device, self.seed, self.psi = G, classes, device, seed, truncation_psi
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # those, all

    def labels(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor | None:  # [n, c_dim] one-hot
        """The class of a random image of the data set for each."""
        if self.classes is None:
            return None
        chosen = counter.integers(self.seed, "metrics.class", index, len(self.classes))
        return torch.nn.functional.one_hot(self.classes.to(index.device)[chosen], self.G.config.c_dim).float()

    def noise(
        self,
        index: Tensor,  # [n] int64
    ) -> list[Tensor]:  # one [n, 1, h, w] for each layer that takes noise
        return sample_noise(self.G, self.seed, "metrics.noise", index)

    def synthesize(
        self,
        ws: Tensor,  # [n, num_ws, w_dim]
        noise: list[Tensor],  # one [n, 1, h, w] for each layer that takes noise
    ) -> Tensor:  # [n, C, H, W]
        images = self.G.synthesis(ws, noise=noise)
        self._counts[0] += (~images.isfinite().flatten(1).all(1)).sum()
        self._counts[1] += len(images)
        return images

    def check(self) -> None:
        """Raises SganError on every rank if there is an image that is not finite on any."""
        broken, seen = distributed.sum_over_ranks(self._counts.clone()).tolist()
        if broken:
            raise SganError(
                f"{broken} of {seen} images of the model hold numbers that are not finite.",
                hint="Measure an earlier snapshot: by this one training had diverged.",
            )


class Fakes(Drawn):
    """The images of a model."""

    def __call__(self, index: Tensor) -> Tensor:
        index = index.to(self.device)
        z = counter.normal(self.seed, "metrics.z", index, (self.G.config.z_dim,))
        ws = self.G.mapping(z, self.labels(index), self.psi)
        return to_rgb(to_uint8(self.synthesize(ws, self.noise(index))))
