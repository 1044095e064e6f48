"""What is kept of a stream of features. Each is fed by one rank's share and gives the result of all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .. import distributed

_ROWS = 4096  # of features that the ranks exchange at a time

Tensors = dict[str, Tensor]


class Statistic(Protocol):
    """What one pass over images can leave behind."""

    count: int  # of the images that it is about: the first so many of the stream

    def add(
        self,
        index: Tensor,  # [n] int64 on the CPU, rising: places of these images in the stream
        outputs: Tensors,  # of the detector, [n, ...] each
    ) -> None: ...

    def result(self) -> Tensors: ...  # on the CPU; all ranks together


class Moments:
    """Mean and covariance in float64.

    Each rank sums up y = x - s and y yᵀ for an s of its own near the mean, so that nothing cancels; the ranks' sums of
    squares are put together about the common mean (Chan et al. 1983, equation 2.1b).
    """

    def __init__(self, key: str, count: int):
        self.key, self.count = key, count  # of the detector's output; of images
        self.n = 0

    def add(self, index: Tensor, outputs: Tensors) -> None:
        x = _first(index, outputs[self.key], self.count).double()
        if not len(x):
            return
        if self.n == 0:
            self.shift = x.mean(0)
            self.sum = torch.zeros_like(self.shift)
            self.squares = x.new_zeros(x.shape[1], x.shape[1])
        y = x - self.shift
        self.n += len(y)
        self.sum += y.sum(0)
        self.squares.addmm_(y.T, y)

    def result(self) -> Tensors:  # mean [D], cov [D, D], count [1]
        n = distributed.sum_over_ranks(torch.full([1], self.n, dtype=torch.float64, device=self.sum.device))
        mean = distributed.sum_over_ranks(self.n * self.shift + self.sum) / n
        own = self.sum / self.n
        self.squares.addr_(self.sum, own, alpha=-1)
        apart = self.shift + own - mean
        self.squares.addr_(apart, apart, alpha=self.n)
        cov = distributed.sum_over_ranks(self.squares) / (n - 1)
        return {"mean": mean.cpu(), "cov": ((cov + cov.T) / 2).cpu(), "count": n.long().cpu()}


class Features:
    """The features themselves, in the order of the stream. Kept, and handed out, on the first rank only."""

    def __init__(self, key: str, count: int):
        self.key, self.count = key, count
        self.parts: list[Tensor] = []

    def add(self, index: Tensor, outputs: Tensors) -> None:
        self.parts.append(_first(index, outputs[self.key], self.count).cpu())

    def result(self) -> Tensors:  # features [count, D]; on other ranks than the first [0, D]
        mine = torch.cat(self.parts)
        self.parts.clear()
        return {"features": gather_rows(mine, self.count)}


class Splits:
    """The sums of which the Inception score is made."""

    def __init__(self, key: str, count: int, splits: int = 10):
        self.key, self.count, self.splits = key, count, splits
        self.sums: tuple[Tensor, ...] = ()

    def add(self, index: Tensor, outputs: Tensors) -> None:
        logits = _first(index, outputs[self.key], self.count)
        if not len(logits):
            return
        # Part k is images k n // splits up to (k + 1) n // splits, also where n is no multiple.
        split = ((self.splits * (index[: len(logits)] + 1) - 1) // self.count).to(logits.device)
        new = _split_sums(logits, split, self.splits)
        self.sums = tuple(a + b for a, b in zip(self.sums, new, strict=True)) if self.sums else new

    def result(self) -> Tensors:  # counts [splits], sums [splits, C], negentropies [splits]
        names = ("counts", "sums", "negentropies")
        return {name: distributed.sum_over_ranks(x).cpu() for name, x in zip(names, self.sums, strict=True)}


STATISTICS: dict[str, Callable[[str, int], Statistic]] = {"moments": Moments, "features": Features, "splits": Splits}


def gather_rows(
    mine: Tensor,  # [n, ...] rows rank, rank + world, rank + 2 world ... of the whole
    count: int,  # rows of the whole
) -> Tensor:  # [count, ...] on the first rank, [0, ...] on the others
    """Put together what was dealt to the ranks, in pieces, so that no rank holds much more than it needs."""
    world, first = distributed.world_size(), distributed.rank() == 0
    if world == 1:
        return mine
    whole = mine.new_empty(count if first else 0, *mine.shape[1:])
    for i in range(0, -(-count // world), _ROWS):
        piece = mine.new_zeros(min(_ROWS, -(-count // world) - i), *mine.shape[1:])  # ranks may have one row less
        own = mine[i : i + _ROWS]
        piece[: len(own)] = own
        pieces = distributed.gather_over_ranks(piece)
        if first:
            rows = torch.stack(pieces, 1).flatten(0, 1)[: count - i * world]
            whole[i * world : i * world + len(rows)] = rows
    return whole


def _first(
    index: Tensor,  # [n] rising
    x: Tensor,  # [n, ...]
    count: int,
) -> Tensor:
    """Of the images that come before place `count`."""
    return x[: int((index < count).sum())]


def _split_sums(
    logits: Tensor,  # [N, C]
    split: Tensor,  # [N] int64, which part each image belongs to
    splits: int,
) -> tuple[Tensor, Tensor, Tensor]:  # counts, sums and negentropies of these images, as `inception_score` takes them
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    counts = torch.bincount(split, minlength=splits).double()
    sums = p.new_zeros(splits, p.shape[1]).index_add_(0, split, p)
    negentropies = p.new_zeros(splits).index_add_(0, split, (p * log_p).sum(1))
    return counts, sums, negentropies
