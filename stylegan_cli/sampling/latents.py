"""From seeds and classes to latents, and what steers an image before synthesis: truncation and noise."""

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
    """One z for each seed: the numbers that every StyleGAN tool draws for it, so that seeds keep their image."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float() if rows else torch.zeros(0, z_dim)


def class_labels(
    class_index: int | None,
    seeds: Sequence[int],
    c_dim: int,  # classes of the model
) -> Tensor | None:  # [N, c_dim] one-hot, None for an unconditional model
    """One label for each seed: the given class, or, where none is given, one drawn by the seed.

    Raises SganError if the model is unconditional and a class is given, or if it has no such class.
    """
    if c_dim == 0:
        if class_index is not None:
            raise SganError("This model has no classes.", hint="Leave out --class.")
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
    seeds: Sequence[int],  # of the images in the batch
    device: torch.device | str = "cpu",
) -> Noise:  # what `G.synthesis` takes
    """'random' noise is drawn by each image's own seed, so that it can be made again in any other batch."""
    if mode != "random":
        return mode
    index = torch.tensor(list(seeds), dtype=torch.int64, device=device)
    return sample_noise(G, 0, "noise", index)


def sample_noise(
    G: Generator,
    seed: int,
    purpose: str,
    index: Tensor,  # [N] int64
) -> list[Tensor]:  # one [N, 1, h, w] for each layer that takes noise
    """Noise for a batch, by counter."""
    sizes = {row.name: (1, row.height, row.width) for row in G.noise_layers}
    return [counter.normal(seed, f"{purpose}.{name}", index, size) for name, size in sizes.items()]
