"""Optimizers whose step a bad gradient holds back."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .state import Stateful


class GuardedOptimizer(Stateful, Protocol):
    """What the engine asks of an optimizer."""

    param_groups: list[dict[str, Any]]
    state: Any  # by parameter

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step_unless(self, bad: Tensor) -> None: ...


class GuardedAdamW(torch.optim.AdamW):
    """torch.optim.AdamW with a step that can be skipped, which the host decides."""

    def step_unless(
        self,
        bad: Tensor,  # [] float32: 0, or 1 to leave weights, moments and the step's number alone
    ) -> None:
        if not bad:
            self.step()


class FusedAdam(torch.optim.Adam):
    """torch.optim.Adam, fused, with a step that the device can skip and a state that any device can take over."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        capturable: bool = False,  # in a CUDA graph
        **options: Any,
    ):
        super().__init__(parameters, fused=True, capturable=capturable, **options)
        self.capturable = capturable
        self._warned_capturable_if_run_uncaptured = True  # the first steps are, on purpose: PyTorch need not warn

    def step_unless(
        self,
        bad: Tensor,  # [] float32: 0, or 1 to leave weights, moments and the step's number alone
    ) -> None:
        """Decided on the device, by what the fused kernel offers to gradient scaling."""
        self.grad_scale, self.found_inf = None, bad
        self.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The fused kernel walks through memory: moments must lie as their parameters do, channels-last ones too."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # how to run is ours to say, not the state's
            group |= {"fused": True, "capturable": self.capturable}
        for parameter, slots in self.state.items():
            for name, value in slots.items():
                if value.shape == parameter.shape:
                    slots[name] = torch.empty_like(parameter).copy_(value)
