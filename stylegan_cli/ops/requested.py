"""The gradients that a backward pass requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def requested_gradients(
    ctx: Any,
    inputs: Sequence[bool],  # which inputs are tensors
) -> list[bool]:  # for each input
    """Of the gradients in `ctx.needs_input_grad`, those that this backward pass passes on: for a gradient with respect
    to images, none of weights."""
    if torch.compiler.is_compiling():  # compiled code is used again for other passes
        return list(ctx.needs_input_grad[: len(inputs)])
    nodes = iter(ctx.next_functions)
    return [_is_requested(next(nodes)[0]) if is_tensor else False for is_tensor in inputs]


def _is_requested(node: Any) -> bool:
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)  # pyright: ignore[reportPrivateImportUsage] (has no public name)
    except RuntimeError:  # a leaf of torch.autograd.grad
        return True


def no_third_derivative(ctx, *_):
    raise RuntimeError("The kernels are differentiable twice. For third derivatives use ops.use('reference')")
