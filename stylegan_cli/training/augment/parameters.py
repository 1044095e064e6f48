"""What each image is to undergo: one table of distributions, one draw for all of them."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...sampling import counter

# Name: how many numbers, their distribution, its strength (a standard deviation, or half of the range about 0).
# A transformation whose numbers are 0 changes nothing. Karras et al. 2020, appendix B.
TABLE: dict[str, tuple[int, str, float]] = {
    "flip": (1, "uniform", 1),  # left to right if above 0
    "turn": (1, "uniform", 1),  # by quarters: the magnitude times 4, rounded down
    "shift": (2, "uniform", 1 / 8),  # of the sides, rounded to pixels
    "scale": (1, "normal", 0.2),  # log2
    "rotate before": (1, "uniform", math.pi),
    "stretch": (1, "normal", 0.2),  # log2, of the width; the height is divided by as much
    "rotate after": (1, "uniform", math.pi),
    "glide": (2, "normal", 1 / 8),  # of the sides
    "brightness": (1, "normal", 0.2),
    "contrast": (1, "normal", 0.5),  # log2
    "luma": (1, "uniform", 1),  # light becomes dark, the colors stay, if above 0
    "hue": (1, "uniform", math.pi),
    "saturation": (1, "normal", 1),  # log2
    "band 0": (1, "normal", 1),  # log2 of the amplification; 0 has the lowest frequencies
    "band 1": (1, "normal", 1),
    "band 2": (1, "normal", 1),
    "band 3": (1, "normal", 1),
    "noise": (1, "normal", 0.1),  # the magnitude is the standard deviation
    "cutout": (3, "uniform", 1),  # center, -1 and 1 being the edges; 3: not 0 where it is to happen
}
_COUNTS = [count for count, _, _ in TABLE.values()]
_START = {name: sum(_COUNTS[:i]) for i, name in enumerate(TABLE)}


class Parameters:
    """Numbers for each transformation of each image, 0 where its coin fell against it."""

    def __init__(
        self,
        seed: int,
        purpose: str,  # names the use
        index: Tensor,  # [N] int64, global index of each image
        p: Tensor,  # [] probability of each transformation
        dtype: torch.dtype,  # of the numbers
    ):
        self.seed, self.purpose, self.index = seed, f"{purpose}.augment", index
        coin, normal, rotation, strength = _columns(index.device)
        u = counter.uniform(seed, self.purpose, index, (len(TABLE) + sum(_COUNTS),))
        coins, u = u[:, : len(TABLE)], u[:, len(TABLE) :] * 2 - 1
        # Two rotations, the chance of either being p.
        chance = torch.where(rotation, 1 - (1 - p).sqrt(), p)  # [transformations]
        values = torch.where(normal, u.erfinv() * math.sqrt(2), u) * strength  # [N, numbers]
        self._values = torch.where((coins < chance).index_select(1, coin), values, 0).to(dtype)

    def __getitem__(self, name: str) -> Tensor:  # [N], or [N, 2 or 3]
        start, count = _START[name], TABLE[name][0]
        return self._values[:, start] if count == 1 else self._values[:, start : start + count]

    def normal(
        self,
        name: str,
        shape: tuple[int, ...],
    ) -> Tensor:  # [N, *shape] N(0, 1), of each image whatever its coins
        return counter.normal(self.seed, f"{self.purpose}.{name}", self.index, shape)


def _columns(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each number its transformation and whether it is normal; for each of these whether it rotates; strengths."""
    rows = [(i, *row) for i, row in enumerate(TABLE.values())]
    coin = tuple(i for i, count, _, _ in rows for _ in range(count))
    normal = tuple(kind == "normal" for _, count, kind, _ in rows for _ in range(count))
    strength = tuple(float(s) for _, count, _, s in rows for _ in range(count))
    rotation = tuple(name.startswith("rotate") for name in TABLE)
    return constant(coin, device), constant(normal, device), constant(rotation, device), constant(strength, device)


@functools.lru_cache(maxsize=256)
def constant(
    values: tuple,  # numbers, or tuples of them
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A tensor that is made once: in a CUDA graph nothing may be copied from the host."""
    with torch.inference_mode(False):  # for whoever comes next may want gradients
        return torch.tensor(values, device=device, dtype=dtype)
