"""Latents and noise from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..models.generator import Generator, Noise
from . import counter


def latents_from_seeds(
    seeds: Sequence[int],
    z_dim: int,
) -> Tensor:  # [N, z_dim] float32
    """Return one z per seed, the same as in NVIDIA's StyleGAN programs, so that a seed keeps its image."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float() if rows else torch.zeros(0, z_dim)


def noise_maps(
    G: Generator,
    mode: Literal["const", "random", "none"],
    seeds: Sequence[int],  # of the images
    device: torch.device | str = "cpu",
) -> Noise:  # for `G.synthesis`
    """Return the noise of a batch. 'random' noise is sampled from each image's seed, so that it does not depend on the
    batch."""
    if mode != "random":
        return mode
    index = torch.tensor(list(seeds), dtype=torch.int64, device=device)
    return sample_noise(G, 0, "noise", index)


def sample_noise(
    G: Generator,
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
) -> list[Tensor]:  # [N, 1, h, w] for each layer with noise
    """Sample noise for a batch, see `counter`."""
    shapes = {f"{purpose}.{row.name}": (1, row.height, row.width) for row in G.noise_layers}
    return counter.normals(seed, shapes, index)
