"""Running statistics that a generator keeps of its training, such as the mean of w.

A batch may be seen in parts and by several ranks, so values are first summed; then the sums of all ranks move the
running means once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """A module that keeps one running mean: `_follow` says how a batch's mean moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.collecting = False
        self._sum: Tensor | None = None  # stays where it is once it is there: CUDA graphs know its address
        self._has_sum = False  # since the last commit

    def collect(
        self,
        values: Tensor,  # [N, ...]
    ) -> None:
        """Add the values of some images, while statistics are collected."""
        if not self.collecting:
            return
        total = values.detach().sum(0)
        if self._sum is None:
            self._sum = torch.zeros_like(total)
        self._sum.add_(total)
        self._has_sum = True

    @torch.no_grad()
    def commit(
        self,
        count: int,  # images over all ranks
        reduce: Callable[[Tensor], Tensor],  # sums over ranks
    ) -> None:
        """Move the running mean, if values were collected."""
        if self._sum is not None and self._has_sum:
            self._follow(reduce(self._sum) / count)
            self._sum.zero_()
            self._has_sum = False

    def discard(self) -> None:
        self._has_sum = False
        if self._sum is not None:
            self._sum.zero_()

    def _follow(
        self,
        mean: Tensor,  # [...] of a batch; not finite if the batch was not
    ) -> None:
        raise NotImplementedError
