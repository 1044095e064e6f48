"""The state protocol: whatever has memory offers state_dict and load_state_dict, and the loop keeps a list of it."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def gather(
    parts: dict[str, Stateful],  # name -> what has memory
) -> dict[str, dict[str, Any]]:
    """The state of everything, by name: the tensors themselves, so copy them before the next step."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(
    parts: dict[str, Stateful],
    state: dict[str, dict[str, Any]],  # what `gather` gave; optimizers may keep its tensors, so use it once
) -> None:
    """Raises KeyError if a part's state is missing, before anything is loaded: a run that forgets its optimizer is not
    a resumed run."""
    if missing := sorted(parts.keys() - state.keys()):
        raise KeyError(f"no state for {', '.join(missing)}")
    for name, part in parts.items():
        part.load_state_dict(state[name])


class Rng:
    """The random generators of all ranks: PyTorch's, the current GPU's where one is in use, NumPy's and Python's.

    All ranks call `state_dict` together. Bytes of tensors, because nothing is pickled.
    """

    def __init__(
        self,
        gather_over_ranks: Callable[[Tensor], list[Tensor]] = lambda t: [t],  # uint8 [n] of this rank -> of each rank
        rank: int = 0,
    ):
        self._gather, self._rank = gather_over_ranks, rank

    def state_dict(self) -> dict[str, Tensor]:  # generator -> uint8 [ranks, bytes]
        mine = _generators()
        rows = torch.stack(self._gather(torch.cat(list(mine.values())))).cpu()  # [ranks, bytes]
        return dict(zip(mine, rows.split([len(part) for part in mine.values()], dim=1), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """A rank that there was not when the state was taken seeds itself from the first one's state and its number."""
        ranks = len(state["torch"])
        row = {name: rows[self._rank if self._rank < ranks else 0].clone() for name, rows in state.items()}
        if self._rank < ranks:
            _set_generators(row)
        else:
            content = b"".join(row[name].numpy().tobytes() for name in sorted(row))
            seed_generators(int.from_bytes(hashlib.sha256(content + b"%d" % self._rank).digest()[:8], "little"))


_NUMPY, _PYTHON = "<624Iqqd", "<625Iqd"  # words, position, whether a normal number is kept, which; the same


def _generators() -> dict[str, Tensor]:  # uint8 [bytes] each
    _, words, position, kept, normal = np.random.get_state()
    _, python_words, python_normal = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else torch.empty(0, dtype=torch.uint8),
        "numpy": _bytes(struct.pack(_NUMPY, *words.tolist(), position, kept, normal)),
        "python": _bytes(struct.pack(_PYTHON, *python_words, python_normal is not None, python_normal or 0.0)),
    }


def _set_generators(row: dict[str, Tensor]) -> None:
    torch.set_rng_state(row["torch"])
    if row["cuda"].numel() and torch.cuda.is_available():
        torch.cuda.set_rng_state(row["cuda"])
    *words, position, kept, normal = struct.unpack(_NUMPY, row["numpy"].numpy().tobytes())
    np.random.set_state(("MT19937", np.array(words, np.uint32), position, kept, normal))
    *words, kept, normal = struct.unpack(_PYTHON, row["python"].numpy().tobytes())
    random.setstate((3, tuple(words), normal if kept else None))


def seed_generators(seed: int) -> None:
    torch.manual_seed(seed)  # the GPUs' too
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
