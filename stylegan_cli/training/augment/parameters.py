"""Random parameters of the augmentations: one table of distributions, sampled together."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...sampling import counter

# Name -> number of values, distribution, strength (standard deviation, or half the range around 0).
# Values of 0 are the identity. Karras et al. 2020, appendix B.
TABLE: dict[str, tuple[int, str, float]] = {
    "flip": (1, "uniform", 1),  # horizontally, if above 0
    "turn": (1, "uniform", 1),  # number of quarter turns: 4 times the magnitude, rounded down
    "shift": (2, "uniform", 1 / 8),  # fraction of the sides, rounded to pixels
    "scale": (1, "normal", 0.2),  # log2
    "rotate before": (1, "uniform", math.pi),
    "stretch": (1, "normal", 0.2),  # log2 of the factor of the width, by which the height is divided
    "rotate after": (1, "uniform", math.pi),
    "glide": (2, "normal", 1 / 8),  # fraction of the sides
    "brightness": (1, "normal", 0.2),
    "contrast": (1, "normal", 0.5),  # log2
    "luma": (1, "uniform", 1),  # inverted without changing hues, if above 0
    "hue": (1, "uniform", math.pi),
    "saturation": (1, "normal", 1),  # log2
    "band 0": (1, "normal", 1),  # log2 of the amplification; band 0 has the lowest frequencies
    "band 1": (1, "normal", 1),
    "band 2": (1, "normal", 1),
    "band 3": (1, "normal", 1),
    "noise": (1, "normal", 0.1),  # the magnitude is the standard deviation
    "cutout": (3, "uniform", 1),  # center, -1 and 1 being the edges; then 0 for no cutout
}
_COUNTS = [count for count, _, _ in TABLE.values()]
_COLOR = tuple(name in ("brightness", "contrast", "luma", "hue", "saturation") for name in TABLE)
_START = {name: sum(_COUNTS[:i]) for i, name in enumerate(TABLE)}


class Parameters:
    """Values for each transformation of each image, 0 where it is not applied."""

    def __init__(
        self,
        seed: int,
        purpose: str,  # name of the use
        index: Tensor,  # [N] int64, global index of each image
        p: Tensor,  # [] probability of each transformation
        dtype: torch.dtype,  # of the values
        rare_color: bool = False,  # whether color transformations have half the probability
    ):
        self.seed, self.purpose, self.index = seed, f"{purpose}.augment", index
        coin, normal, rotation, strength = _columns(index.device)
        u = counter.uniform(seed, self.purpose, index, (len(TABLE) + sum(_COUNTS),))
        coins, u = u[:, : len(TABLE)], u[:, len(TABLE) :] * 2 - 1
        # Two rotations, with a probability p that at least one is applied.
        probability = torch.where(rotation, 1 - (1 - p).sqrt(), p)  # [transformations]
        if rare_color:
            probability = torch.where(constant(_COLOR, index.device), p / 2, probability)
        values = torch.where(normal, u.erfinv() * math.sqrt(2), u) * strength  # [N, values]
        self._values = torch.where((coins < probability).index_select(1, coin), values, 0).to(dtype)

    def __getitem__(self, name: str) -> Tensor:  # [N], or [N, 2 or 3]
        start, count = _START[name], TABLE[name][0]
        return self._values[:, start] if count == 1 else self._values[:, start : start + count]

    def normal(
        self,
        name: str,
        shape: tuple[int, ...],
    ) -> Tensor:  # [N, *shape] N(0, 1), for every image
        return counter.normal(self.seed, f"{self.purpose}.{name}", self.index, shape)


def _columns(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the transformation of each value, whether it is normal, whether each transformation rotates, strengths."""
    rows = [(i, *row) for i, row in enumerate(TABLE.values())]
    coin = tuple(i for i, count, _, _ in rows for _ in range(count))
    normal = tuple(distribution == "normal" for _, count, distribution, _ in rows for _ in range(count))
    strength = tuple(float(s) for _, count, _, s in rows for _ in range(count))
    rotation = tuple(name.startswith("rotate") for name in TABLE)
    return constant(coin, device), constant(normal, device), constant(rotation, device), constant(strength, device)


@functools.lru_cache(maxsize=256)
def constant(
    values: tuple,  # numbers, or tuples of numbers
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A cached tensor, because nothing may be copied from the host in a CUDA graph."""
    with torch.inference_mode(False):  # the cached tensor may later be used with gradients
        return torch.tensor(values, device=device, dtype=dtype)
