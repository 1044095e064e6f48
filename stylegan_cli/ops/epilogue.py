"""What surrounds a convolution, as one operation with one pass for each derivative.

    y = F(p) = clamp(gain act(p), -c, c),   p = scale x + strength noise + b

act is linear, relu or lrelu. With dp = F'(p) dy:  dx = scale dp,  dscale = sum dp x,  dstrength = sum dp noise,
db = sum dp. The kernels, csrc/bias_act.cu and csrc/epilogue.cu, are bound by csrc/library_training.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .dispatch import layout_of
from .requested import no_third_derivative, requested_gradients


def piecewise_epilogue(
    x: Tensor,  # [N, C, ...] on the GPU
    scale: Tensor | None = None,  # [N, C]
    noise: Tensor | None = None,  # [N or 1, 1, H, W]
    strength: Tensor | None = None,  # [] factor on the noise
    b: Tensor | None = None,  # [C]
    slope: float = 1.0,  # below zero
    gain: float = 1.0,  # above zero
    clamp: float | None = None,
) -> Tensor:  # [N, C, ...]
    """Compute F(p) with the kernel, whose small operands have its accumulation type. Differentiable twice."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    small = (None if t is None else t.to(acc).contiguous() for t in (scale, noise, strength, b))
    return torch.ops.sgan.epilogue(x, *small, slope, gain, math.inf if clamp is None else clamp)


def epilogue_reference(
    x: Tensor,  # [N, C, ...]
    scale: Tensor | None,  # [N, C]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    strength: Tensor | None,  # []
    b: Tensor | None,  # [C]
    slope: float,
    gain: float,
    clamp: float,
) -> Tensor:  # [N, C, ...]
    ones = [1] * (x.ndim - 2)
    p = x if scale is None else x * scale.reshape(*scale.shape, *ones)
    p = p if noise is None else p + (noise if strength is None else noise * strength)
    p = p if b is None else p + b.reshape(-1, *ones)
    return (torch.where(p > 0, p, p * slope) * gain).clamp(-clamp, clamp)


_OPERANDS = "Tensor? scale, Tensor? noise, Tensor? strength, Tensor? b"
_SAVED = "Tensor dy, Tensor? y, Tensor? x, Tensor? scale, Tensor? noise"
_PARAMS = "float slope, float gain, float clamp"
_BEFORE = "Tensor? b=None"  # if given, y is not that of the forward pass, but its x, before the bias b
torch.library.define("sgan::epilogue", f"(Tensor x, {_OPERANDS}, {_PARAMS}) -> Tensor")
torch.library.define(
    "sgan::epilogue_backward",
    f"({_SAVED}, bool bias, {_PARAMS}, {_BEFORE}) -> (Tensor dx, Tensor dscale, Tensor dstrength, Tensor db)",
)
torch.library.define(
    "sgan::epilogue_double_backward",
    f"(Tensor? gx, Tensor? gscale, Tensor? gstrength, Tensor? gb, {_SAVED}, {_PARAMS}, {_BEFORE}) -> "
    "(Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("sgan::epilogue")
def _(x, scale, noise, strength, b, slope, gain, clamp):
    return torch.empty_like(x, memory_format=layout_of(x))


@torch.library.register_fake("sgan::epilogue_backward")
def _(dy, y, x, scale, noise, bias, slope, gain, clamp, b=None):
    n, c = dy.shape[:2]
    sizes = ([n if x is not None else 0, c], [] if noise is not None else [0], [c if bias else 0])
    return torch.empty_like(dy, memory_format=layout_of(dy)), *(_empty(size, dy) for size in sizes)


@torch.library.register_fake("sgan::epilogue_double_backward")
def _(gx, gscale, gstrength, gb, dy, y, x, scale, noise, slope, gain, clamp, b=None):
    n, c = dy.shape[:2]
    cx = dy.new_empty(0, 0, 0, 0) if gscale is None else torch.empty_like(dy, memory_format=layout_of(dy))
    has_scale = gx is not None and scale is not None
    return torch.empty_like(dy, memory_format=layout_of(dy)), cx, _empty([n if has_scale else 0, c], dy)


def _empty(size: Sequence[int], x: Tensor) -> Tensor:
    return x.new_empty(size, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _setup_forward(ctx, inputs, output):
    x, scale, noise, strength, b, slope, gain, clamp = inputs
    ctx.set_materialize_grads(False)
    ctx.params, ctx.tensors = (slope, gain, clamp), [isinstance(t, Tensor) for t in inputs]
    needs = ctx.needs_input_grad
    from_y = slope != 1 or clamp != math.inf
    operands = (scale, noise if needs[2] or needs[3] else None, strength if needs[2] else None)
    ctx.save_for_backward(output if from_y else None, x if needs[1] else None, *operands)


def _forward_backward(ctx, dy):
    y, x, scale, noise, strength = ctx.saved_tensors
    if dy is None:
        return (None,) * 8
    requested = requested_gradients(ctx, ctx.tensors)
    x, noise = x if requested[1] else None, noise if requested[2] or requested[3] else None
    if requested[2] or not _is_one_pass(dy, y, x):
        return *_separate_gradients(dy, y, x, scale, noise, strength, requested, *ctx.params), None, None, None
    layout = layout_of(dy if y is None else y)
    dx, dscale, dstrength, db = torch.ops.sgan.epilogue_backward(
        dy.contiguous(memory_format=layout), y, x, scale, noise, requested[4], *ctx.params
    )
    return (
        dx,
        dscale if x is not None else None,
        None,
        dstrength if noise is not None else None,
        db if requested[4] else None,
        None,
        None,
        None,
    )


def _is_one_pass(dy: Tensor, y: Tensor | None, x: Tensor | None) -> bool:
    """Whether the kernel takes these: rows of channels, all in the same format."""
    like = dy if y is None else y
    rows = like.ndim == 2 or (like.ndim == 4 and (layout_of(like) == torch.channels_last or like.shape[1] == 1))
    return rows and like.numel() > 0 and all(t is None or layout_of(t) == layout_of(like) for t in (y, x))


def _separate_gradients(
    dy: Tensor,  # [N, C, ...]
    y: Tensor | None,
    x: Tensor | None,  # if dscale is requested
    scale: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,  # if dnoise is requested
    requested: Sequence[bool],  # for x, scale, noise, strength, b
    slope: float,
    gain: float,
    clamp: float,
) -> list[Tensor | None]:
    """The gradients of x, scale, noise, strength and b with an operation for each. Sums use the type of the operand."""
    pixels = list(range(2, dy.ndim))
    dp = dy
    if y is not None:
        dp = torch.ops.sgan.bias_act_backward(dy, y, None, None, None, None, "lrelu", gain, slope, clamp)
    elif gain != 1:
        dp = dy * gain
    acc = torch.float64 if dy.dtype == torch.float64 else torch.float32
    dx = dp if scale is None else dp * scale.to(dp.dtype).reshape(*scale.shape, *[1] * len(pixels))
    dscale = dnoise = dstrength = db = None
    if x is not None:
        dscale = dp.to(acc) * x  # half precision would overflow in the sum
        dscale = dscale.sum(pixels) if pixels else dscale
    if noise is not None:
        over_channels = dp.sum(1, keepdim=True, dtype=acc)
        weighted = over_channels if strength is None else over_channels * strength
        dnoise = weighted.sum_to_size(noise.shape) if requested[2] else None
        dstrength = (over_channels * noise).sum() if requested[3] else None
    if requested[4]:
        db = dp.sum([0, *pixels], dtype=acc)
    return [dx, dscale, dnoise, dstrength, db]


def _setup_backward(ctx, inputs, output):
    dy, y, x, scale, noise, ctx.bias, *ctx.params = inputs[:9]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dy, y, x, scale, noise, *inputs[9:])


def _backward_backward(ctx, gx, gscale, gstrength, gb):
    *saved, b = (*ctx.saved_tensors, None)[:6]
    x, scale, noise = saved[2:]
    computed = (x is not None, noise is not None, ctx.bias)  # compiled code has gradients of empty tensors too
    directions = zip((gscale, gstrength, gb), computed, strict=True)
    gscale, gstrength, gb = (t.contiguous() if t is not None and has else None for t, has in directions)
    if gx is None and gscale is None and gstrength is None and gb is None:
        return (None,) * 10
    ddy, cx, cscale = torch.ops.sgan.epilogue_double_backward(gx, gscale, gstrength, gb, *saved, *ctx.params, b)
    has_scale = gx is not None and scale is not None
    gradients = ddy, None, cx if gscale is not None else None, cscale if has_scale else None
    return *gradients, None, None, None, None, None, None


torch.library.register_autograd("sgan::epilogue", _forward_backward, setup_context=_setup_forward)
torch.library.register_autograd("sgan::epilogue_backward", _backward_backward, setup_context=_setup_backward)
torch.library.register_autograd("sgan::epilogue_double_backward", no_third_derivative)
