"""How likely an augmentation should be: as likely as keeps the discriminator from overfitting.

p <- p + sign(r - target) batch interval / (1000 kimg),   r = E[sign(D(real))]

(Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3.1)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...distributed import sum_over_ranks


class AdaptiveP:
    """The probability p, on the device: nothing is read on the host, and no tensor is ever replaced by another."""

    def __init__(
        self,
        p: float,  # to begin with
        target: float | None,  # of r; None: p stays
        kimg: float = 500,  # thousands of images that take p from 0 to 1
        interval: int = 4,  # steps between two moves
        device: torch.device | str = "cpu",
    ):
        self.target, self.kimg, self.interval = target, kimg, interval
        self.p = torch.tensor(float(p), device=device)  # []
        self.r_t = torch.zeros([], device=device)  # r at the last move
        self._seen = torch.zeros(2, device=device)  # sum of signs and number of images in this step, on this rank
        self._sums = torch.zeros(2, device=device)  # the same since the last move, over all ranks
        self._steps = 0  # since then

    @torch.no_grad()
    def observe(
        self,
        logits: Tensor,  # [N, 1] the discriminator's, of real images; what is not finite does not count
    ) -> None:
        finite = logits.isfinite()
        signs = torch.where(finite, logits, 0).sign().sum()
        self._seen += torch.stack([signs, finite.sum()])

    @torch.no_grad()
    def update(
        self,
        batch: int,  # images of a step, over all ranks
    ) -> None:
        """Once a step, on all ranks together; every `interval` steps p moves."""
        self._sums += sum_over_ranks(self._seen)  # every step, so that one rank's state is that of all
        self._seen.zero_()
        self._steps += 1
        if self._steps >= self.interval:
            self._move(batch)

    def _move(self, batch: int) -> None:
        signs, count = self._sums
        self.r_t.copy_(torch.where(count > 0, signs / count, self.r_t))
        if self.target is not None:
            step = batch * self.interval / (self.kimg * 1000)
            self.p.add_((self.r_t - self.target).sign() * (count > 0), alpha=step).clamp_(0, 1)
        self._sums.zero_()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Between two steps, after `update`."""
        return {"p": self.p, "r_t": self.r_t, "sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, name in ((self.p, "p"), (self.r_t, "r_t"), (self._sums, "sums")):
            mine.copy_(state[name])
        self._seen.zero_()
        self._steps = int(state["steps"])
