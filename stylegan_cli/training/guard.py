"""What keeps one bad step from spoiling a run: it is found, counted and skipped on the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

STREAK = 8  # so many skipped steps in a row and the run goes back to its last state
ROLLBACKS = 3  # so often, each time with half the learning rate


class Guard:
    """Counts steps in which a gradient was not finite. Nothing is read on the host before `streak` is asked for."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
    ):
        self.skipped = torch.zeros([], device=device)  # steps, since the run began
        self.in_a_row = torch.zeros([], device=device)
        self._bad = torch.zeros([], device=device)  # 1 if a phase of this step was bad
        self.rollbacks = 0

    def check(
        self,
        gradients: Iterable[Tensor],  # of one phase, after the sum over ranks: all ranks find the same
    ) -> Tensor:  # [] float32, 1 if any number is not finite
        """A sum is finite only if all its terms are."""
        total = torch.stack([g.sum() for g in gradients]).sum()
        bad = (~total.isfinite()).float()
        torch.maximum(self._bad, bad, out=self._bad)
        return bad

    def tick(self) -> None:
        """A step is over."""
        self.in_a_row.add_(1).mul_(self._bad)
        self.skipped.add_(self._bad)
        self._bad.zero_()

    def streak(self) -> int:
        """Steps skipped in a row, up to the last one. Waits for the device."""
        return int(self.in_a_row)

    def forgive(
        self,
        rollbacks: int,  # so far
    ) -> None:
        """The run went back: count the streak anew."""
        self.rollbacks = rollbacks
        self.in_a_row.zero_()

    def state_dict(self) -> dict:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict) -> None:
        self.skipped.copy_(state["skipped"])
        self.in_a_row.copy_(state["in_a_row"])
        self.rollbacks = state["rollbacks"]


def finite_or(
    new: Tensor,  # [...]
    old: Tensor,  # [...] the same shape
) -> Tensor:  # [...]
    """The new value of a running mean, or the old one if the new is not finite throughout: decided on the device."""
    return torch.where(new.isfinite().all(), new, old)
