"""Bias, activation, gain and clamp in one operation.

    y = clamp(gain * act(p), -c, c),   p = x + b

The kernels compute p = scale * x + noise + b, with one scale per sample and channel and one noise value per pixel:
everything that follows the convolution in a modulated layer.
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
from .epilogue import piecewise_epilogue


@dataclass(frozen=True)
class Activation:
    """An activation function and the constants that keep the second moment of its output near one."""

    function: Callable[[Tensor, float], Tensor]  # (x, alpha) -> act(x)
    gain: float = 1.0  # default gain
    alpha: float = 0.0  # default slope or shape parameter
    kernel: bool = True  # implemented by csrc/bias_act.cu


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
    act: str = "linear",  # key of ACTIVATIONS
    gain: float | None = None,  # factor after the activation; None: the default of the activation
    alpha: float | None = None,  # slope of lrelu; None: 0.2
    clamp: float | None = None,  # upper bound of the absolute result; None: no bound
) -> Tensor:  # [N, C, ...]
    """Add a bias to every channel, activate, scale and clamp. Activations without a kernel use the composite.

    Differentiable twice in x and b. Raises ValueError if the activation is unknown or the bias has the wrong shape.
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
    x = ACTIVATIONS[act].function(x, alpha)
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


# Slope below zero; above zero it is 1.
_SLOPES: dict[str, Callable[[float], float]] = {
    "linear": lambda alpha: 1.0,
    "relu": lambda alpha: 0.0,
    "lrelu": lambda alpha: alpha,
}


def negative_slope(
    act: str,  # key of ACTIVATIONS
    alpha: float,
    gain: float,
) -> float | None:
    """The slope below zero of a piecewise linear activation whose gain can move inside it; None for any other."""
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


# The kernels: csrc/bias_act.cu, bound by csrc/library.cpp. Derivatives use the same operators, so that they can be
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
    strength: Tensor | None = None,  # [] factor on the noise
) -> Tensor:  # [N, C, ...]
    """Compute clamp(gain act(scale x + strength noise + b)) with the kernel."""
    if scale is None and noise is None and b is None and act == "linear" and gain == 1 and clamp is None:
        return x
    slope = negative_slope(act, alpha, gain)
    if slope is not None:
        return piecewise_epilogue(x, scale, noise, strength, b, slope, gain, clamp)
    noise = noise if noise is None or strength is None else noise * strength
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32  # of the small operands
    scale, noise, b = (None if t is None else t.to(acc).contiguous() for t in (scale, noise, b))
    return torch.ops.sgan.bias_act(x, scale, noise, b, act, gain, alpha, math.inf if clamp is None else clamp)


_IMPLEMENTATIONS = {
    "cuda": lambda x, b, *params: epilogue(x, None, None, b, *params),
    "composite": _bias_act_composite,
    "reference": bias_act_reference,
}

_PARAMS = "str act, float gain, float alpha, float clamp"
_OPERANDS = "Tensor? scale, Tensor? noise, Tensor? b"
torch.library.define("sgan::bias_act", f"(Tensor x, {_OPERANDS}, {_PARAMS}) -> Tensor")
torch.library.define("sgan::bias_act_backward", f"(Tensor dy, Tensor? y, Tensor? x, {_OPERANDS}, {_PARAMS}) -> Tensor")
torch.library.define(
    "sgan::bias_act_double_backward", f"(Tensor ddp, Tensor dy, Tensor x, {_OPERANDS}, {_PARAMS}) -> Tensor"
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
    x, scale, noise, b, *ctx.params = inputs
    act, gain, alpha, _ = ctx.params
    from_y = negative_slope(act, alpha, gain) is not None  # y has the sign of p: only the gradient of scale needs x
    keep_x = not from_y or (scale is not None and ctx.needs_input_grad[1])
    ctx.save_for_backward(x if keep_x else None, output if from_y else None, scale, noise, b)


def _forward_backward(ctx, dy):
    x, y, scale, noise, b = ctx.saved_tensors
    if y is None:
        dp = torch.ops.sgan.bias_act_backward(dy, None, x, scale, noise, b, *ctx.params)
    else:
        dp = torch.ops.sgan.bias_act_backward(dy, y, None, None, None, None, *ctx.params)
    return *_operand_gradients(dp, x, scale, noise, b, ctx.needs_input_grad[:4]), None, None, None, None


def _operand_gradients(
    dp: Tensor,  # [N, C, ...]
    x: Tensor | None,  # [N, C, ...]; used by the gradient of scale
    scale: Tensor | None,  # [N, C]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    b: Tensor | None,  # [C]
    needs_grad: tuple[bool, ...],  # for x, scale, noise, b
) -> list[Tensor | None]:
    """Gradients of x, scale, noise and b, given that of p = scale x + noise + b. Sums use the type of the operand."""
    pixels = list(range(2, dp.ndim))
    dx = dscale = dnoise = db = None
    if needs_grad[0]:
        dx = dp if scale is None else dp * scale.to(dp.dtype).reshape(*scale.shape, *[1] * len(pixels))
    if needs_grad[1] and scale is not None and x is not None:
        dscale = dp.to(scale.dtype) * x  # half precision would overflow in the sum
        dscale = dscale.sum(pixels) if pixels else dscale
    if needs_grad[2] and noise is not None:
        dnoise = dp.sum(1, keepdim=True, dtype=noise.dtype).sum_to_size(noise.shape)
    if needs_grad[3] and b is not None:
        db = dp.sum([0, *pixels], dtype=b.dtype)
    return [dx, dscale, dnoise, db]


def _setup_backward(ctx, inputs, output):
    dy, y, x, scale, noise, b, *ctx.params = inputs
    ctx.save_for_backward(dy if y is None else None, y, x, scale, noise, b)


def _backward_backward(ctx, ddp):
    dy, y, x, scale, noise, b = ctx.saved_tensors
    operands = (scale, noise, b)
    ddy = torch.ops.sgan.bias_act_backward(ddp, y, x, *operands, *ctx.params) if ctx.needs_input_grad[0] else None
    gradients = [None] * 4  # piecewise linear activations have no curvature
    if y is None and ctx.params[0] not in _SLOPES and any(ctx.needs_input_grad[2:6]):
        dp = torch.ops.sgan.bias_act_double_backward(ddp, dy, x, *operands, *ctx.params)
        gradients = _operand_gradients(dp, x, *operands, ctx.needs_input_grad[2:6])
    return ddy, None, *gradients, None, None, None, None


def _no_third_derivative(ctx, *_):
    raise RuntimeError("bias_act is differentiable twice. For third derivatives use ops.use('reference')")


torch.library.register_autograd("sgan::bias_act", _forward_backward, setup_context=_setup_forward)
torch.library.register_autograd("sgan::bias_act_backward", _backward_backward, setup_context=_setup_backward)
torch.library.register_autograd("sgan::bias_act_double_backward", _no_third_derivative)
