"""The probability of augmentations, adapted so that the discriminator does not overfit.

p <- p + sign(r - target) batch interval / (1000 kimg),   r = E[sign(D(real))]

(Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3.1)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...distributed import sum_over_ranks


class AdaptiveP:
    """The probability p, on the device, without synchronization. All tensors are updated in place."""

    def __init__(
        self,
        p: float,  # initial value
        target: float | None,  # of r; None: p is constant
        kimg: float = 500,  # thousands of images in which p can go from 0 to 1
        interval: int = 4,  # steps between updates of p
        device: torch.device | str = "cpu",
    ):
        self.target, self.kimg, self.interval = target, kimg, interval
        self.p = torch.tensor(float(p), device=device)  # []
        self.r_t = torch.zeros([], device=device)  # r at the last update of p
        self._seen = torch.zeros(2, device=device)  # sum of signs and number of images of this step, on this rank
        self._sums = torch.zeros(2, device=device)  # the same since the last update of p, over all ranks
        self._steps = 0  # since the last update of p

    @torch.no_grad()
    def observe(
        self,
        logits: Tensor,  # [N, 1] of the discriminator on real images; non-finite values are ignored
    ) -> None:
        """Add the outputs of one part of a batch."""
        finite = logits.isfinite()
        signs = torch.where(finite, logits, 0).sign().sum()
        self._seen += torch.stack([signs, finite.sum()])

    @torch.no_grad()
    def update(
        self,
        batch: int,  # images per step, over all ranks
    ) -> None:
        """Call once per step, on all ranks together; updates p every `interval` steps."""
        self._sums += sum_over_ranks(self._seen)  # every step, so that all ranks have the same state
        self._seen.zero_()
        self._steps += 1
        if self._steps >= self.interval:
            self._update_p(batch)

    def _update_p(self, batch: int) -> None:
        signs, count = self._sums
        self.r_t.copy_(torch.where(count > 0, signs / count, self.r_t))
        if self.target is not None:
            step = batch * self.interval / (self.kimg * 1000)
            self.p.add_((self.r_t - self.target).sign() * (count > 0), alpha=step).clamp_(0, 1)
        self._sums.zero_()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state. Call between steps, after `update`."""
        return {"p": self.p, "r_t": self.r_t, "sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for tensor, name in ((self.p, "p"), (self.r_t, "r_t"), (self._sums, "sums")):
            tensor.copy_(state[name])
        self._seen.zero_()
        self._steps = int(state["steps"])
