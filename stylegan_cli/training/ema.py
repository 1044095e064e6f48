"""Exponential moving average of the generator's weights (Karras et al. 2018, section 5.1).

ema <- beta ema + (1 - beta) weights,   beta = 0.5 ^ (batch / half-life)
"""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    def __init__(
        self,
        network: nn.Module,
        half_life: float,  # in images
        rampup: float | None = None,  # the half-life is at most this fraction of the images shown so far; None: off
    ):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life, self.rampup = half_life, rampup

    def beta(
        self,
        shown: int,  # images so far
        batch: int,  # images of this step
    ) -> float:
        half_life = self.half_life if self.rampup is None else min(self.half_life, shown * self.rampup)
        return 0.5 ** (batch / max(half_life, 1e-8))

    @torch.no_grad()
    def update(
        self,
        network: nn.Module,
        shown: int,
        batch: int,
    ) -> None:
        """Move the parameters toward the network's, and copy its buffers, such as the mean of w."""
        weight = 1 - self.beta(shown, batch)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)  # pyright: ignore[reportPrivateImportUsage] (has no public name)
        torch._foreach_copy_(list(self.network.buffers()), list(network.buffers()))  # pyright: ignore[reportPrivateImportUsage] (has no public name)
