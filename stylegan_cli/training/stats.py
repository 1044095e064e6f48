"""Means of what happens between two lines of the log, taken on the device and over all ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import sum_over_ranks


class Means:
    """Sums and counts by name; nothing is copied to the CPU before `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name -> [2]: sum, count

    def add(
        self,
        name: str,
        values: Tensor,  # [...] each element counts once
    ) -> None:
        values = values.detach()
        total = torch.stack([values.sum().double(), values.new_tensor(values.numel(), dtype=torch.float64)])
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def take(self) -> dict[str, float]:
        """The mean of each name over all ranks since the last call. All ranks must call it together."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = sum_over_ranks(torch.stack([self._sums[name] for name in names])).cpu()  # [names, 2]
        self._sums = {}
        return {name: float(total / count) for name, (total, count) in zip(names, table, strict=True)}


class RunLog:
    """stats.jsonl, log.txt, and TensorBoard where it is installed."""

    def __init__(
        self,
        folder: Path,
    ):
        self._stats = open(folder / "stats.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
        self._text = open(folder / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder))

    def stats(
        self,
        values: dict[str, Any],  # one line: numbers by name, 'kimg' among them
    ) -> None:
        self._stats.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}) + "\n")
        self._stats.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, global_step=int(values["kimg"] * 1000))

    def text(
        self,
        line: str,
    ) -> None:
        self._text.write(line + "\n")
        self._text.flush()

    def close(self) -> None:
        self._stats.close()
        self._text.close()
        if self._board is not None:
            self._board.close()
