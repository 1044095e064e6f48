"""Generated images and their class maps in place of a dataset of pairs: each is a function of a seed and its index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache import sha256_of
from ..data.dataset import DataSpec
from ..data.images import to_uint8
from ..models.generator import Generator
from ..sampling import counter
from ..sampling.generate import SamplingOptions
from ..sampling.labels import sample_labels
from ..sampling.latents import sample_noise
from ..sampling.segmenter import class_maps
from ..sampling.segmenter_files import load_segmenter

COUNT = 65_536  # images, as if of a dataset


class GeneratedPairs:
    """As a `PairedDataset`, whose other images are class maps."""

    def __init__(
        self,
        segmenter: str,  # its file
        G: Generator,
        model: str,  # fingerprint of the generator
        seed: int,
    ):
        """Raises SganError if the file is damaged, or belongs to another model."""
        opened = load_segmenter(segmenter, G, model)
        self.G, self.segmenter, self.classes, self.seed = G, opened.linear, opened.info.classes, seed
        config = G.config
        self.spec = DataSpec(
            path=segmenter,
            content_hash=sha256_of(Path(segmenter)),
            num=COUNT,
            height=config.height,
            width=config.width,
            channels=config.channels,
            source_height=config.height,
            source_width=config.width,
        )

    def __len__(self) -> int:
        return COUNT

    @torch.no_grad()
    def images(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:
        """Return images, and the index of the class of each pixel, uint8 [N, C + 1, H, W]."""
        index, batch = torch.as_tensor(indices, dtype=torch.int64), SamplingOptions().batch_for(self.G)
        parts = [self._pairs(part.to(self.G.device)).cpu() for part in index.split(batch)]
        return torch.cat(parts)

    def labels(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,  # [N]
    ) -> Tensor:  # float32 [N, c_dim]
        index = torch.as_tensor(indices, dtype=torch.int64)
        labels = self._labels(index)
        return torch.zeros(len(index), 0) if labels is None else labels

    def _labels(self, index: Tensor) -> Tensor | None:
        return sample_labels(self.G.label_space, self.seed, "generated.c", index)

    def _pairs(self, index: Tensor) -> Tensor:
        z_dim = self.G.config.z_dim
        z = F.normalize(counter.normal(self.seed, "generated.z", index, (z_dim,)), dim=1) * math.sqrt(z_dim)
        noise = sample_noise(self.G, self.seed, "generated.noise", index)
        ws = self.G.mapping(z, self._labels(index))
        images, logits = self.segmenter.read(self.G.synthesis, ws, noise=noise)
        return torch.cat([to_uint8(images), class_maps(logits)[:, None]], 1)
