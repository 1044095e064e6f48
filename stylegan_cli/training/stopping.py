"""Clean stop of a run by a signal: a signal to any rank stops all ranks after the same step."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Iterator
from types import FrameType

import torch
from torch import Tensor

from .. import distributed
from ..terminal import INSISTENT, STOP_SIGNALS, handle_signals


class StopFlag:
    """A request to stop, made on any rank and seen by all ranks after the same step."""

    def __init__(self, device: torch.device):
        self.requested = False
        self._device = device
        self._pending: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def requested_on_any_rank(self) -> bool:
        """Whether to stop after this step. On CUDA two steps late, so that no step waits for the device."""
        if distributed.world_size() == 1:
            return self.requested
        if self._device.type != "cuda":
            return distributed.any_rank(self.requested, self._device)
        flag = distributed.sum_over_ranks(torch.full([], float(self.requested), device=self._device))
        host = torch.empty([], pin_memory=True)
        host.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((host, event))
        if len(self._pending) <= 2:
            return False
        host, event = self._pending.popleft()
        event.synchronize()
        return bool(host)


@contextlib.contextmanager
def stop_on_interrupt(device: torch.device) -> Iterator[StopFlag]:
    """Request a stop after the step on any request, and stop at once on a second one if it insists. Several ranks only
    react to SIGTERM, which the process that started them sends."""
    stop = StopFlag(device)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.requested and (number not in INSISTENT or distributed.world_size() > 1):
            return  # torchrun and its parent may each have sent one
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        if distributed.rank() == 0:  # unbuffered: the interrupted code may be writing to Python's buffers
            with contextlib.suppress(OSError):  # the terminal or the reader of the pipe is gone
                os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once.\n")

    with handle_signals(on_signal, (signal.SIGTERM,) if distributed.world_size() > 1 else STOP_SIGNALS):
        yield stop
