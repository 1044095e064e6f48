"""Latents, class labels and noise from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import Generator, Noise
from . import counter


def latents_from_seeds(
    seeds: Sequence[int],
    z_dim: int,
) -> Tensor:  # [N, z_dim] float32
    """Return one z per seed, the same as in NVIDIA's StyleGAN programs, so that a seed keeps its image."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float() if rows else torch.zeros(0, z_dim)


def class_labels(
    class_index: int | None,
    seeds: Sequence[int],
    c_dim: int,  # number of classes of the model
) -> Tensor | None:  # [N, c_dim] one-hot, None for an unconditional model
    """Return one label per seed: of the given class, or of one sampled from the seed.

    Raises SganError if the model has no such class.
    """
    if c_dim == 0:
        if class_index is not None:
            raise SganError("This model has no classes.", hint="Remove --class.")
        return None
    if class_index is not None and not 0 <= class_index < c_dim:
        raise SganError(f"This model has no class {class_index}.", hint=f"Choose --class from 0 to {c_dim - 1}.")
    if class_index is None:
        index = counter.integers(0, "class", torch.tensor(list(seeds), dtype=torch.int64), c_dim)
    else:
        index = torch.full([len(seeds)], class_index)
    return torch.nn.functional.one_hot(index, c_dim).float()


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
    sizes = {row.name: (1, row.height, row.width) for row in G.noise_layers}
    return [counter.normal(seed, f"{purpose}.{name}", index, size) for name, size in sizes.items()]
