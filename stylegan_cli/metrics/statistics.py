"""Statistics of a stream of features. Each rank adds its share; the result is that of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .. import distributed
from ..ops import to_float64

_ROWS = 4096  # rows of features that ranks exchange at a time

Tensors = dict[str, Tensor]


class Statistic(Protocol):
    """A statistic that is accumulated in one pass over images."""

    count: int  # number of images, from the start of the stream

    def add(
        self,
        index: Tensor,  # [n] int64 on the CPU, increasing: indices of these images in the stream
        outputs: Tensors,  # outputs of the detector, [n, ...] each
    ) -> None: ...

    def result(self) -> Tensors: ...  # on the CPU; must be called on all ranks


class Moments:
    """Mean and covariance in float64.

    Each rank sums y = x - s and y yᵀ, with its own s near the mean to avoid cancellation. The ranks' sums of squares
    are then combined around the common mean (Chan et al. 1983, equation 2.1b).
    """

    def __init__(
        self,
        key: str,  # key of the detector's output
        count: int,  # number of images
    ):
        self.key, self.count = key, count
        self.n = 0

    def add(self, index: Tensor, outputs: Tensors) -> None:
        x = to_float64(_first(index, outputs[self.key], self.count))
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
        rank_mean = self.sum / self.n  # relative to the shift
        self.squares.addr_(self.sum, rank_mean, alpha=-1)
        difference = self.shift + rank_mean - mean
        self.squares.addr_(difference, difference, alpha=self.n)
        cov = distributed.sum_over_ranks(self.squares) / (n - 1)
        return {"mean": mean.cpu(), "cov": ((cov + cov.T) / 2).cpu(), "count": n.long().cpu()}


class Features:
    """The features themselves, in the order of the stream, on the first rank."""

    def __init__(self, key: str, count: int):
        self.key, self.count = key, count
        self.parts: list[Tensor] = []

    def add(self, index: Tensor, outputs: Tensors) -> None:
        self.parts.append(_first(index, outputs[self.key], self.count).cpu())

    def result(self) -> Tensors:  # features [count, D] on the first rank, [0, D] on the others
        rows = torch.cat(self.parts)
        self.parts.clear()
        return {"features": gather_rows(rows, self.count)}


class Splits:
    """The sums that the Inception score is computed from."""

    def __init__(self, key: str, count: int, splits: int = 10):
        self.key, self.count, self.splits = key, count, splits
        self.sums: tuple[Tensor, ...] = ()

    def add(self, index: Tensor, outputs: Tensors) -> None:
        logits = _first(index, outputs[self.key], self.count)
        if not len(logits):
            return
        # Split k is images k n // splits up to (k + 1) n // splits, even if n is not a multiple of splits.
        split = (self.splits * (index[: len(logits)] + 1) - 1) // self.count
        new = _split_sums(logits, split, self.splits)
        self.sums = tuple(a + b for a, b in zip(self.sums, new, strict=True)) if self.sums else new

    def result(self) -> Tensors:  # counts [splits], sums [splits, C], negentropies [splits]
        names = ("counts", "sums", "negentropies")
        return {name: distributed.sum_over_ranks(x).cpu() for name, x in zip(names, self.sums, strict=True)}


STATISTICS: dict[str, Callable[[str, int], Statistic]] = {"moments": Moments, "features": Features, "splits": Splits}


def gather_rows(
    rows: Tensor,  # [n, ...] this rank's rows: rank, rank + world, rank + 2 world ... of all rows
    count: int,  # number of all rows
) -> Tensor:  # [count, ...] on the first rank, [0, ...] on the others
    """Gather interleaved rows from all ranks, in pieces, so that other ranks need little extra memory."""
    world, is_first = distributed.world_size(), distributed.rank() == 0
    if world == 1:
        return rows
    all_rows = rows.new_empty(count if is_first else 0, *rows.shape[1:])
    for i in range(0, -(-count // world), _ROWS):
        piece = rows.new_zeros(min(_ROWS, -(-count // world) - i), *rows.shape[1:])  # a rank may have one row less
        part = rows[i : i + _ROWS]
        piece[: len(part)] = part
        pieces = distributed.gather_over_ranks(piece)
        if is_first:
            merged = torch.stack(pieces, 1).flatten(0, 1)[: count - i * world]
            all_rows[i * world : i * world + len(merged)] = merged
    return all_rows


def _first(
    index: Tensor,  # [n] increasing
    x: Tensor,  # [n, ...]
    count: int,
) -> Tensor:
    """Keep the rows with an index below `count`."""
    return x[: int((index < count).sum())]


def _split_sums(
    logits: Tensor,  # [N, C]
    split: Tensor,  # [N] int64, split of each image
    splits: int,  # number of splits
) -> tuple[Tensor, Tensor, Tensor]:  # counts, sums and negentropies: see `inception_score`
    log_p = to_float64(logits).log_softmax(1)
    p, split = log_p.exp(), split.to(log_p.device)
    counts = torch.bincount(split, minlength=splits).double()
    sums = p.new_zeros(splits, p.shape[1]).index_add_(0, split, p)
    negentropies = p.new_zeros(splits).index_add_(0, split, (p * log_p).sum(1))
    return counts, sums, negentropies
