"""How a run is stopped in good order: by a signal to any rank, after the same step on all."""

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


class StopFlag:
    """An orderly stop that any rank was asked for, heard by all ranks after the same step."""

    def __init__(self, device: torch.device):
        self.asked = False
        self._device = device
        self._sent: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def heard(self) -> bool:
        """On CUDA it takes two steps, so that no step waits for the device."""
        if distributed.world_size() == 1:
            return self.asked
        if self._device.type != "cuda":
            return distributed.any_rank(self.asked, self._device)
        flag = distributed.sum_over_ranks(torch.full([], float(self.asked), device=self._device))
        host = torch.empty([], pin_memory=True)
        host.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._sent.append((host, event))
        if len(self._sent) <= 2:
            return False
        host, event = self._sent.popleft()
        event.synchronize()
        return bool(host)


@contextlib.contextmanager
def stop_on_interrupt(device: torch.device) -> Iterator[StopFlag]:
    """Ctrl-C or SIGTERM asks for an orderly stop after the step; a second one stops at once. One of several ranks
    hears of it from the process that started them, by SIGTERM."""
    stop = StopFlag(device)

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked and distributed.world_size() > 1:
            return  # torchrun and what runs it may each have sent one
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        if distributed.rank() == 0:  # past Python's buffers, which whatever this interrupts may be writing to
            os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once.\n")

    numbers = (signal.SIGTERM,) if distributed.world_size() > 1 else (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
