"""Running statistics that a generator collects during training, such as the mean of w.

A batch may be split into parts and over ranks. The values are therefore summed first; then the sums of all ranks update
the running means once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def collect_statistics(
    network: nn.Module,
) -> Iterator[None]:
    """In this context, forward passes collect the sums with which `commit_statistics` updates the running means."""
    modules = _running_means(network)
    for module in modules:
        module.collecting = True
    try:
        yield
    finally:
        for module in modules:
            module.collecting = False


def commit_statistics(
    network: nn.Module,
    count: int,  # number of images over all ranks
    reduce: Callable[[Tensor], Tensor],  # sums a tensor over all ranks
) -> None:
    """Update the running means with the statistics of a batch, unless these are not finite."""
    for module in _running_means(network):
        module.commit(count, reduce)


def discard_statistics(
    network: nn.Module,
) -> None:
    """Discard the statistics of a batch that will not be finished."""
    for module in _running_means(network):
        module.discard()


def _running_means(network: nn.Module) -> list[RunningMean]:
    return [module for module in network.modules() if isinstance(module, RunningMean)]
