"""PyTorch's optimizers without its compiler: `torch.optim` imports that at the first use, which takes about a second.

They behave as PyTorch's own, without `differentiable`; torch.compile must not trace through their methods.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class _Uncompiled(Optimizer):
    """The methods that PyTorch wraps to keep its compiler out, as they are under the wrapper."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)


class Adam(_Uncompiled, torch.optim.Adam):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class LBFGS(_Uncompiled, torch.optim.LBFGS):
    """Its step has only `torch.no_grad` around it."""
