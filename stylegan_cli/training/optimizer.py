"""Optimizers that skip the step if a gradient is bad."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..optimizers import Adam, AdamW
from .state import Stateful


class GuardedOptimizer(Stateful, Protocol):
    """What the engine needs from an optimizer."""

    param_groups: list[dict[str, Any]]
    state: Any  # parameter -> its state

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step_unless(self, bad: Tensor) -> None: ...


class GuardedAdamW(AdamW):
    """torch.optim.AdamW with a step that can be skipped, decided on the host."""

    def step_unless(
        self,
        bad: Tensor,  # [] float32: 1 leaves weights, moments and step count unchanged, else 0
    ) -> None:
        if not bad:
            self.step()


class FusedAdam(Adam):
    """torch.optim.Adam with a step that can be skipped and a state that loads on any device. Fused on CPUs and CUDA,
    where the device decides; on others, such as Apple's GPUs, the host does."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        capturable: bool = False,  # for CUDA graphs
        **options: Any,
    ):
        self.fused, self.capturable = parameters[0].device.type in ("cpu", "cuda"), capturable
        super().__init__(parameters, fused=self.fused, capturable=capturable, **options)
        self._warned_capturable_if_run_uncaptured = True  # silences PyTorch: the first steps are eager on purpose

    def step_unless(
        self,
        bad: Tensor,  # [] float32: 1 leaves weights, moments and step count unchanged, else 0
    ) -> None:
        """Step unless `bad`, decided on the device by the fused kernel's support for gradient scaling."""
        if self.fused:
            self.grad_scale, self.found_inf = None, bad
        if self.fused or not bad:
            self.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, with moments in the memory format of their parameters, as the fused kernel requires."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # depends on this process, not on the state
            group |= {"fused": self.fused, "capturable": self.capturable}
        for parameter, slots in self.state.items():
            for name, value in slots.items():
                if value.shape == parameter.shape:
                    slots[name] = torch.empty_like(parameter).copy_(value)


def lazy_adam(
    parameters: list[nn.Parameter],
    interval: int | None,  # steps between regularizations; None: no regularization
    lr: float,
    betas: tuple[float, float],
    capturable: bool = False,  # for CUDA graphs
    **options: Any,
) -> FusedAdam:
    """With a regularizer every k steps, an optimizer makes k + 1 updates in k steps; learning rate and betas are
    corrected by c = k / (k + 1) (Karras et al. 2020, appendix B, "lazy regularization")."""
    c = 1 if interval is None else interval / (interval + 1)
    return FusedAdam(parameters, capturable, lr=lr * c, betas=(float(betas[0] ** c), float(betas[1] ** c)), **options)
