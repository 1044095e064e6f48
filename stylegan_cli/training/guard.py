"""Protection against bad steps: they are detected, counted and skipped on the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MAX_STREAK = 8  # skipped steps of a phase in a row after which the run returns to its last state
MAX_ROLLBACKS = 3  # each halves the learning rate


class Guard:
    """Counts steps in which a gradient was not finite. Only `streak` reads from the device."""

    def __init__(
        self,
        phases: Iterable[str],  # names
        device: torch.device | str = "cpu",
    ):
        self.skipped = torch.zeros([], device=device)  # steps of the run in which any phase was skipped
        self.in_a_row = {name: torch.zeros([], device=device) for name in phases}
        self.hold = torch.zeros([], device=device)  # 1: skip all updates, whatever the gradients are
        self.rollbacks = 0
        self._bad = torch.zeros([], device=device)  # 1 if a phase of this step was bad

    def check(
        self,
        phase: str,
        gradients: Iterable[Tensor],  # after the sum over ranks, so that the result is the same on all
    ) -> Tensor:  # [] float32, 1 if any number is not finite
        """Record whether all gradients are finite: their norms are only if all elements are."""
        total = torch.stack(torch._foreach_norm(list(gradients))).sum()  # pyright: ignore[reportPrivateImportUsage] (has no public name)
        bad = torch.maximum((total - total != 0).float(), self.hold)  # infinity - infinity is not a number
        self.in_a_row[phase].add_(1).mul_(bad)
        torch.maximum(self._bad, bad, out=self._bad)
        return bad

    def tick(self) -> None:
        """End a step."""
        self.skipped.add_(self._bad)
        self._bad.zero_()

    def streak(
        self,
        phases: Iterable[str] | None = None,  # names; None: all
    ) -> int:
        """Return the largest number of most recent steps of a phase that were skipped. Waits for the device."""
        names = self.in_a_row if phases is None else phases
        return int(torch.stack([self.in_a_row[name] for name in names]).max())

    def reset_streaks(
        self,
        rollbacks: int,  # so far
    ) -> None:
        """Reset the counts after a rollback."""
        self.rollbacks = rollbacks
        for count in self.in_a_row.values():
            count.zero_()

    def state_dict(self) -> dict:
        return {"skipped": self.skipped, "in_a_row": dict(self.in_a_row), "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict) -> None:
        self.skipped.copy_(state["skipped"])
        for name, count in self.in_a_row.items():  # a change of settings can add phases
            count.copy_(state["in_a_row"].get(name, torch.zeros([])))
        self._bad.zero_()
        self.rollbacks = state["rollbacks"]


def finite_or(
    new: Tensor,  # [...]
    old: Tensor,  # [...] the same shape
) -> Tensor:  # [...]
    """Return `new` if all of it is finite, else `old`; decided on the device."""
    return torch.where(new.isfinite().all(), new, old)
