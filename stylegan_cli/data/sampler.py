"""The order of training images: endless, shuffled, and independent of the number of ranks."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Images(Protocol):
    """A dataset, or what takes its place."""

    def images(self, indices: Tensor, /) -> Tensor: ...  # [N] -> uint8 [N, C, H, W]

    def labels(self, indices: Tensor, /) -> Tensor: ...  # [N] -> float32 [N, c_dim]


class Sampler:
    """Endless sequence of dataset indices, reshuffled each epoch by (seed, epoch).

    Position g counts images over all ranks: it is image g mod num of epoch g // num, and belongs to rank g mod world.
    The position is the whole state.
    """

    def __init__(
        self,
        num: int,  # number of images in the dataset
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,  # number of ranks
        chosen: np.ndarray | None = None,  # [num] their dataset indices, if they are only some; None: 0 to num - 1
    ):
        if num < 1 or not 0 <= rank < world:
            raise ValueError(f"invalid sampler: {num} images, rank {rank} of {world}")
        self.num, self.seed, self.rank, self.world = num, seed, rank, world
        self.chosen, self.position = chosen, 0
        self._orders: dict[int, np.ndarray] = {}  # permutations in use, by epoch

    def next(
        self,
        batch: int,  # number of images over all ranks, a multiple of world
    ) -> tuple[Tensor, Tensor]:
        """Return this rank's share of the next batch: dataset indices and positions, both int64 [batch / world]."""
        if batch % self.world:
            raise ValueError(f"a batch of {batch} is not divisible by {self.world} ranks")
        g = np.arange(self.position, self.position + batch, dtype=np.int64)
        g = torch.from_numpy(g[g % self.world == self.rank])
        self.position += batch
        return self.at(g), g

    def at(
        self,
        positions: Tensor,  # [N] int64
    ) -> Tensor:  # [N] int64 dataset indices
        """Return which images are at some positions. Other threads may call this too."""
        epochs, offsets = (x.tolist() for x in divmod(positions.numpy(), self.num))
        known = self._orders
        self._orders = orders = {e: known[e] if e in known else self._order(e) for e in set(epochs)}
        indices = np.array([orders[e][i] for e, i in zip(epochs, offsets, strict=True)], np.int64)
        return torch.from_numpy(indices if self.chosen is None else self.chosen[indices])

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = int(state["position"])

    def _order(self, epoch: int) -> np.ndarray:
        """Permutation of an epoch, from Philox's raw bits, which NumPy guarantees not to change."""
        bits = np.random.Philox(key=[self.seed % 2**64, epoch]).random_raw(self.num)
        return np.argsort(bits, kind="stable")


class Loader:
    """Batches of a dataset in the sampler's order; a thread prepares the next batch in advance.

    Its state is the position after the last batch returned, so that resuming does not skip the batch prepared in
    advance. Must be closed.
    """

    def __init__(
        self,
        dataset: Images,
        sampler: Sampler,
        batch: int,  # number of images over all ranks
        pin: bool = False,  # whether to use pinned memory, for asynchronous copies to a GPU
    ):
        self.dataset, self.sampler, self.batch, self.pin = dataset, sampler, batch, pin
        self._position = sampler.position
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._ahead: Future | None = None

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return this rank's images uint8 [n, C, H, W], labels float32 [n, c_dim] and positions int64 [n]."""
        ahead = self._ahead or self._thread.submit(self._prepare)
        self._ahead = None
        batch = ahead.result()
        self._position += self.batch
        self._ahead = self._thread.submit(self._prepare)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._discard_ahead()
        self.sampler.load_state_dict(state)
        self._position = self.sampler.position

    def close(self) -> None:
        """Wait for the thread and reset the sampler to the end of the last batch returned."""
        self._discard_ahead()
        self.sampler.position = self._position
        self._thread.shutdown()

    def _prepare(self) -> tuple[Tensor, Tensor, Tensor]:
        indices, positions = self.sampler.next(self.batch)
        images, labels = self.dataset.images(indices), self.dataset.labels(indices)
        if self.pin:
            return images.pin_memory(), labels.pin_memory(), positions.pin_memory()
        return images, labels, positions

    def _discard_ahead(self) -> None:
        if self._ahead is not None and not self._ahead.cancel():
            self._ahead.exception()  # waits, and ignores errors
        self._ahead = None
