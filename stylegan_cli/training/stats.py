"""Means of values between two log lines, computed on the device and over all ranks, and the log itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import sum_over_ranks
from ..files import write_atomic
from ..ops import has_float64
from ..runs import append_line, record_metric


class Means:
    """Sums and counts by name, updated in place (CUDA graphs hold their addresses); only `take` reads them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name -> [2] sum, count; float64 where the device has it

    def add(
        self,
        name: str,
        values: Tensor,  # [...] non-finite elements are ignored
    ) -> None:
        values = values.detach()
        dtype = torch.float64 if has_float64(values.device) else torch.float32
        finite = values - values == 0  # in fewer operations than isfinite
        sums = (values.nan_to_num(0, 0, 0).sum(dtype=dtype), finite.sum(dtype=dtype))
        if name in self._sums:
            self._sums[name].add_(torch.stack(sums))
        else:
            self._sums[name] = torch.stack(sums)

    def take(self) -> dict[str, float]:
        """Return the mean of each name over all ranks since the last call. All ranks must call it together."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = sum_over_ranks(torch.stack([self._sums[name] for name in names])).cpu()  # [names, 2]
        self.clear()
        return {name: float(total / count) for name, (total, count) in zip(names, table, strict=True) if count > 0}

    def clear(self) -> None:
        for total in self._sums.values():
            total.zero_()


class RunLog:
    """stats.jsonl, log.txt, metric-<name>.jsonl, and TensorBoard where it is installed."""

    def __init__(
        self,
        folder: Path,
        kimg: float = 0.0,  # where the run resumes: later lines are removed
        write: Callable[[Callable[[], None]], Any] = lambda write: write(),  # may wait for disk space
    ):
        self.folder, self._write = folder, write
        for path in [folder / "stats.jsonl", *folder.glob("metric-*.jsonl")]:
            _truncate_after(kimg, path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder), purge_step=round(kimg * 1000) + 1 if kimg else None)

    def stats(
        self,
        values: dict[str, Any],  # one line: name -> number, with 'kimg'
    ) -> None:
        line = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        self._append("stats.jsonl", json.dumps(line))
        for name, value in values.items():
            self._scalar(name, value, values["kimg"])

    def metric(
        self,
        name: str,
        value: float,
        kimg: float,
        snapshot: str,  # its file name
    ) -> None:
        self._write(lambda: record_metric(self.folder, name, value, kimg, snapshot))
        self._scalar(f"metric/{name}", value, kimg)

    def image(
        self,
        name: str,
        image: Tensor,  # [C, H, W] uint8
        kimg: float,
    ) -> None:
        if image.shape[0] != 4:
            self._log_to_board("add_image", name, image, kimg)

    def text(
        self,
        line: str,
    ) -> None:
        self._append("log.txt", line)

    def close(self) -> None:
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()

    def _append(self, name: str, line: str) -> None:
        self._write(lambda: append_line(self.folder / name, line))

    def _scalar(self, name: str, value: float, kimg: float) -> None:
        self._log_to_board("add_scalar", name, value, kimg)

    def _log_to_board(self, method: str, name: str, value: Any, kimg: float) -> None:
        """Log to TensorBoard, until its disk is full: the other files have the same values."""
        if self._board is not None:
            try:
                getattr(self._board, method)(name, value, global_step=round(kimg * 1000))
            except OSError:
                self._board = None


def _truncate_after(kimg: float, path: Path) -> None:
    """Remove lines after `kimg`, and incomplete lines."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if (k := _kimg_of(line)) is not None and k <= kimg + 1e-9]
    if kept != lines:
        write_atomic(path, "".join(line + "\n" for line in kept))


def _kimg_of(line: str) -> float | None:
    try:
        return float(json.loads(line)["kimg"])
    except (ValueError, KeyError, TypeError):
        return None
