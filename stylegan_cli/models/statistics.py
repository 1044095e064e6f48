"""Running statistics that a generator collects during training, such as the mean of w.

A batch may be split into parts and over ranks. The values are therefore summed first; then the sums of all ranks update
the running means once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """A module with one running mean, which `_update` changes after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.collecting = False
        self._sum: Tensor | None = None  # never reallocated, because CUDA graphs use its address
        self._has_sum = False  # since the last commit

    def collect(
        self,
        values: Tensor,  # [N, ...]
    ) -> None:
        """Add the values of some images if `collecting`."""
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
        count: int,  # number of images over all ranks
        reduce: Callable[[Tensor], Tensor],  # sums over ranks
    ) -> None:
        """Move the running mean, if values were collected."""
        if self._sum is not None and self._has_sum:
            self._update(reduce(self._sum) / count, count)
            self._sum.zero_()
            self._has_sum = False

    def discard(self) -> None:
        self._has_sum = False
        if self._sum is not None:
            self._sum.zero_()

    def _update(
        self,
        mean: Tensor,  # [...] mean over a batch, which may not be finite
        count: int,  # its number of images
    ) -> None:
        raise NotImplementedError
