"""Bias, activation, gain and clamp in one operation.

y = clamp(gain * act(x + b), -c, c)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import use_fast


@dataclass(frozen=True)
class Activation:
    """One activation function with the constants that keep the second moment of its output near one."""

    function: Callable[[Tensor, float], Tensor]  # (x, alpha) -> act(x)
    gain: float = 1.0  # default gain
    alpha: float = 0.0  # default slope or shape parameter


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: F.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), gain=math.sqrt(2), alpha=0.2),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: F.elu(x)),
    "selu": Activation(lambda x, alpha: F.selu(x)),
    "softplus": Activation(lambda x, alpha: F.softplus(x)),
    "swish": Activation(lambda x, alpha: x * torch.sigmoid(x), gain=math.sqrt(2)),
}


def bias_act(
    x: Tensor,  # [N, C, ...]
    b: Tensor | None = None,  # [C]
    act: str = "linear",  # a name of ACTIVATIONS
    gain: float | None = None,  # factor after the activation; None: the activation's own
    alpha: float | None = None,  # slope of lrelu; None: 0.2
    clamp: float | None = None,  # bound on the absolute value of the result; None: no bound
    impl: str = "auto",  # 'auto' or 'reference'
) -> Tensor:  # [N, C, ...]
    """Add a bias to every channel, activate, scale, clamp.

    Differentiable twice in x and b. Raises ValueError on an unknown activation or a bias of the wrong shape.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, not {act!r}")
    if b is not None and b.shape != (x.shape[1],):
        raise ValueError(f"b must have shape [{x.shape[1]}] for x of shape {list(x.shape)}, not {list(b.shape)}")
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else float(gain)
    alpha = spec.alpha if alpha is None else float(alpha)
    fast = use_fast(impl)
    if fast and act == "linear" and b is None and gain == 1 and clamp is None:
        return x
    slope = slope_of(act, alpha, gain)
    if fast and slope is not None:
        return _PiecewiseLinear.apply(x, b, slope, gain, clamp)
    return _bias_act_reference(x, b, act, gain, alpha, clamp)


def _bias_act_reference(
    x: Tensor, b: Tensor | None, act: str, gain: float, alpha: float, clamp: float | None
) -> Tensor:
    if b is not None:
        x = x + b.reshape(1, -1, *[1] * (x.ndim - 2))
    x = ACTIVATIONS[act].function(x, alpha) * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


# Slope left of zero; right of it the slope is 1.
_SLOPES: dict[str, Callable[[float], float]] = {
    "linear": lambda alpha: 1.0,
    "relu": lambda alpha: 0.0,
    "lrelu": lambda alpha: alpha,
}


def slope_of(
    act: str,  # a name of ACTIVATIONS
    alpha: float,
    gain: float,
) -> float | None:
    """The slope left of zero of an activation made of two rays, whose gain can be taken inside; None of the others."""
    return _SLOPES[act](alpha) if act in _SLOPES and gain > 0 and alpha >= 0 else None


class _PiecewiseLinear(torch.autograd.Function):
    """linear, relu and lrelu: the derivative is a mask that the output alone determines, so only y is kept."""

    @staticmethod
    def forward(ctx, x, b, slope, gain, clamp):  # x [N, C, ...], b [C] or None -> [N, C, ...]
        if b is None:
            y = x * gain
        else:
            y = torch.add((b * gain).reshape(1, -1, *[1] * (x.ndim - 2)), x, alpha=gain)
        activate_(y, slope, clamp)
        ctx.save_for_backward(y)
        ctx.bias, ctx.slope, ctx.gain, ctx.clamp = b is not None, slope, gain, clamp
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        dx = PiecewiseLinearGradient.apply(dy, y, ctx.slope, ctx.gain, ctx.clamp)
        db = dx.sum([0, *range(2, dx.ndim)]) if ctx.bias and ctx.needs_input_grad[1] else None
        return dx, db, None, None, None


class PiecewiseLinearGradient(torch.autograd.Function):
    """dx = dy * gain * slope(y): linear in dy, and flat in y almost everywhere."""

    @staticmethod
    def forward(ctx, dy, y, slope, gain, clamp):  # dy, y [N, C, ...] -> [N, C, ...]
        ctx.save_for_backward(y)
        ctx.slope, ctx.gain, ctx.clamp = slope, gain, clamp
        if slope == 1:
            dx = dy * gain
        else:
            dx = torch.ops.aten.leaky_relu_backward(dy, y, slope, True)
            dx = dx if gain == 1 else dx.mul_(gain)
        return dx if clamp is None else dx.masked_fill_(y.abs() >= clamp, 0)

    @staticmethod
    def backward(ctx, ddx):
        (y,) = ctx.saved_tensors
        return PiecewiseLinearGradient.apply(ddx, y, ctx.slope, ctx.gain, ctx.clamp), None, None, None, None


def activate_(
    y: Tensor,  # [N, C, ...] with the gain in it, changed in place
    slope: float,  # left of zero
    clamp: float | None,
) -> Tensor:
    """act and clamp in place."""
    if slope != 1:
        F.leaky_relu_(y, slope)
    return y if clamp is None else y.clamp_(-clamp, clamp)
