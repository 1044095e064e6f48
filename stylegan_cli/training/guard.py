"""What keeps one bad step from spoiling a run: it is found, counted and skipped on the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

STREAK = 8  # so many skipped steps of a phase in a row and the run goes back to its last state
ROLLBACKS = 3  # so often, each time with half the learning rate


class Guard:
    """Counts steps in which a gradient was not finite. Nothing is read on the host before `streak` is asked for."""

    def __init__(
        self,
        phases: Iterable[str],  # names
        device: torch.device | str = "cpu",
    ):
        self.skipped = torch.zeros([], device=device)  # steps in which any phase was skipped, since the run began
        self.in_a_row = {name: torch.zeros([], device=device) for name in phases}
        self.hold = torch.zeros([], device=device)  # 1: nothing is learnt, whatever the gradients are
        self.rollbacks = 0
        self._bad = torch.zeros([], device=device)  # 1 if a phase of this step was bad

    def check(
        self,
        phase: str,
        gradients: Iterable[Tensor],  # after the sum over ranks: all ranks find the same
    ) -> Tensor:  # [] float32, 1 if any number is not finite
        """A norm is finite only if all numbers are."""
        norms = torch.stack(torch._foreach_norm(list(gradients)))  # pyright: ignore[reportPrivateImportUsage] (has no public name)
        bad = torch.maximum((~norms.sum().isfinite()).float(), self.hold)
        self.in_a_row[phase].add_(1).mul_(bad)
        torch.maximum(self._bad, bad, out=self._bad)
        return bad

    def tick(self) -> None:
        """A step is over."""
        self.skipped.add_(self._bad)
        self._bad.zero_()

    def streak(self) -> int:
        """The most steps of a phase skipped in a row, up to its last one. Waits for the device."""
        return int(torch.stack(list(self.in_a_row.values())).max())

    def forgive(
        self,
        rollbacks: int,  # so far
    ) -> None:
        """The run went back: count anew."""
        self.rollbacks = rollbacks
        for count in self.in_a_row.values():
            count.zero_()

    def state_dict(self) -> dict:
        return {"skipped": self.skipped, "in_a_row": dict(self.in_a_row), "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict) -> None:
        self.skipped.copy_(state["skipped"])
        for name, count in self.in_a_row.items():
            count.copy_(state["in_a_row"][name])
        self._bad.zero_()
        self.rollbacks = state["rollbacks"]


def finite_or(
    new: Tensor,  # [...]
    old: Tensor,  # [...] the same shape
) -> Tensor:  # [...]
    """The new value of a running mean, or the old one if the new is not finite throughout: decided on the device."""
    return torch.where(new.isfinite().all(), new, old)
