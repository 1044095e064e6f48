"""Bias, activation, gain and clamp in one operation.

    y = clamp(gain * act(p), -c, c),   p = x + b

The kernels take p = scale * x + noise + b: with a scale for each sample and channel and a noise for each pixel that is
all that follows the convolution of a modulated layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .composite import PiecewiseLinear
from .dispatch import choose, layout_of


@dataclass(frozen=True)
class Activation:
    """One activation function with the constants that keep the second moment of its output near one."""

    function: Callable[[Tensor, float], Tensor]  # (x, alpha) -> act(x)
    gain: float = 1.0  # default gain
    alpha: float = 0.0  # default slope or shape parameter
    kernel: bool = True  # csrc/bias_act.cu has it


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: F.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), gain=math.sqrt(2), alpha=0.2),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: F.elu(x), kernel=False),
    "selu": Activation(lambda x, alpha: F.selu(x), kernel=False),
    "softplus": Activation(lambda x, alpha: F.softplus(x), kernel=False),
    "swish": Activation(lambda x, alpha: x * torch.sigmoid(x), gain=math.sqrt(2)),
}


def bias_act(
    x: Tensor,  # [N, C, ...]
    b: Tensor | None = None,  # [C]
    act: str = "linear",  # a name of ACTIVATIONS
    gain: float | None = None,  # factor after the activation; None: the activation's own
    alpha: float | None = None,  # slope of lrelu; None: 0.2
    clamp: float | None = None,  # bound on the absolute value of the result; None: no bound
) -> Tensor:  # [N, C, ...]
    """Add a bias to every channel, activate, scale, clamp. An activation without a kernel takes the composite.

    Differentiable twice in x and b. Raises ValueError on an unknown activation or a bias of the wrong shape.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, not {act!r}")
    if b is not None and b.shape != (x.shape[1],):
        raise ValueError(f"b must have shape [{x.shape[1]}] for x of shape {list(x.shape)}, not {list(b.shape)}")
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else float(gain)
    alpha = spec.alpha if alpha is None else float(alpha)
    implementation = choose(x.device.type, cuda=spec.kernel)
    if implementation != "reference" and act == "linear" and b is None and gain == 1 and clamp is None:
        return x
    return _IMPLEMENTATIONS[implementation](x, b, act, gain, alpha, clamp)


def bias_act_reference(
    x: Tensor,  # [N, C, ...]
    b: Tensor | None,  # [C]
    act: str,
    gain: float,
    alpha: float,
    clamp: float | None,
) -> Tensor:  # [N, C, ...]
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


def negative_slope(
    act: str,  # a name of ACTIVATIONS
    alpha: float,
    gain: float,
) -> float | None:
    """The slope left of zero of an activation made of two rays, whose gain can be taken inside; None of the others."""
    return _SLOPES[act](alpha) if act in _SLOPES and gain > 0 and alpha >= 0 else None


def _bias_act_composite(
    x: Tensor,  # [N, C, ...]
    b: Tensor | None,  # [C]
    act: str,
    gain: float,
    alpha: float,
    clamp: float | None,
) -> Tensor:  # [N, C, ...]
    slope = negative_slope(act, alpha, gain)
    if slope is None:
        return bias_act_reference(x, b, act, gain, alpha, clamp)
    return PiecewiseLinear.apply(x, b, slope, gain, clamp)


# The kernels: csrc/bias_act.cu by csrc/library.cpp. Derivatives are made of the same operators, so that they can be
# differentiated again. Notation: p = scale x + noise + b, y = F(p), dy = dL/dy, dp = dL/dp = F'(p) dy.


def epilogue(
    x: Tensor,  # [N, C, ...] on the GPU
    scale: Tensor | None,  # [N, C]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    b: Tensor | None,  # [C]
    act: str,
    gain: float,
    alpha: float,
    clamp: float | None,
) -> Tensor:  # [N, C, ...]
    """clamp(gain act(scale x + noise + b)) by the kernel, which takes small operands in the type it adds in."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale, noise, b = (None if t is None else t.to(acc).contiguous() for t in (scale, noise, b))
    return torch.ops.sgan.bias_act(x, scale, noise, b, act, gain, alpha, math.inf if clamp is None else clamp)


_IMPLEMENTATIONS = {
    "cuda": lambda x, b, *form: epilogue(x, None, None, b, *form),
    "composite": _bias_act_composite,
    "reference": bias_act_reference,
}

_FORM = "str act, float gain, float alpha, float clamp"
_SMALL = "Tensor? scale, Tensor? noise, Tensor? b"
torch.library.define("sgan::bias_act", f"(Tensor x, {_SMALL}, {_FORM}) -> Tensor")
torch.library.define("sgan::bias_act_backward", f"(Tensor dy, Tensor? y, Tensor? x, {_SMALL}, {_FORM}) -> Tensor")
torch.library.define(
    "sgan::bias_act_double_backward", f"(Tensor ddp, Tensor dy, Tensor x, {_SMALL}, {_FORM}) -> Tensor"
)


@torch.library.register_fake("sgan::bias_act")
def _(x, scale, noise, b, act, gain, alpha, clamp):
    return torch.empty_like(x, memory_format=layout_of(x))


@torch.library.register_fake("sgan::bias_act_backward")
def _(dy, y, x, scale, noise, b, act, gain, alpha, clamp):
    like = x if y is None else y
    return torch.empty_like(like, memory_format=layout_of(like))


@torch.library.register_fake("sgan::bias_act_double_backward")
def _(ddp, dy, x, scale, noise, b, act, gain, alpha, clamp):
    return torch.empty_like(x, memory_format=layout_of(x))


def _setup_forward(ctx, inputs, output):
    x, scale, noise, b, *ctx.form = inputs
    act, gain, alpha, _ = ctx.form
    from_y = (
        negative_slope(act, alpha, gain) is not None
    )  # y has p's sign: x need not be kept, unless for the scale's sake
    keep_x = not from_y or (scale is not None and ctx.needs_input_grad[1])
    ctx.save_for_backward(x if keep_x else None, output if from_y else None, scale, noise, b)


def _forward_backward(ctx, dy):
    x, y, scale, noise, b = ctx.saved_tensors
    if y is None:
        dp = torch.ops.sgan.bias_act_backward(dy, None, x, scale, noise, b, *ctx.form)
    else:
        dp = torch.ops.sgan.bias_act_backward(dy, y, None, None, None, None, *ctx.form)
    return *_through_p(dp, x, scale, noise, b, ctx.needs_input_grad[:4]), None, None, None, None


def _through_p(
    dp: Tensor,  # [N, C, ...]
    x: Tensor | None,  # [N, C, ...]; needed for the scale's gradient
    scale: Tensor | None,  # [N, C]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    b: Tensor | None,  # [C]
    needed: tuple[bool, ...],  # of x, scale, noise, b
) -> list[Tensor | None]:
    """Gradients of x, scale, noise and b from that of p = scale x + noise + b. Sums are made in the operands' type."""
    pixels = list(range(2, dp.ndim))
    dx = dscale = dnoise = db = None
    if needed[0]:
        dx = dp if scale is None else dp * scale.to(dp.dtype).reshape(*scale.shape, *[1] * len(pixels))
    if needed[1] and scale is not None and x is not None:
        dscale = dp.to(scale.dtype) * x if not pixels else (dp.to(scale.dtype) * x).sum(pixels)  # half would overflow
    if needed[2] and noise is not None:
        dnoise = dp.sum(1, keepdim=True, dtype=noise.dtype).sum_to_size(noise.shape)
    if needed[3] and b is not None:
        db = dp.sum([0, *pixels], dtype=b.dtype)
    return [dx, dscale, dnoise, db]


def _setup_backward(ctx, inputs, output):
    dy, y, x, scale, noise, b, *ctx.form = inputs
    ctx.save_for_backward(dy if y is None else None, y, x, scale, noise, b)


def _backward_backward(ctx, ddp):
    dy, y, x, scale, noise, b = ctx.saved_tensors
    small = (scale, noise, b)
    ddy = torch.ops.sgan.bias_act_backward(ddp, y, x, *small, *ctx.form) if ctx.needs_input_grad[0] else None
    through_p = [None] * 4  # two rays have no curvature
    if y is None and ctx.form[0] not in _SLOPES and any(ctx.needs_input_grad[2:6]):
        bent = torch.ops.sgan.bias_act_double_backward(ddp, dy, x, *small, *ctx.form)
        through_p = _through_p(bent, x, *small, ctx.needs_input_grad[2:6])
    return ddy, None, *through_p, None, None, None, None


def _no_third_derivative(ctx, *_):
    raise RuntimeError("bias_act is differentiable twice: for a third derivative ops.use('reference')")


torch.library.register_autograd("sgan::bias_act", _forward_backward, setup_context=_setup_forward)
torch.library.register_autograd("sgan::bias_act_backward", _backward_backward, setup_context=_setup_backward)
torch.library.register_autograd("sgan::bias_act_double_backward", _no_third_derivative)
