"""Custom derivatives for the fast path without kernels, where those of PyTorch's autograd would be slower.

Bias and activation save only their output. CPU convolutions give the same results as PyTorch's, each in the memory
layout that is fastest for it. All are differentiable any number of times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .products import product_dtype

# Bias and activation


class PiecewiseLinear(torch.autograd.Function):
    """linear, relu and lrelu. The output alone determines the derivative, so only y is saved."""

    @staticmethod
    def forward(ctx, x, b, slope, gain, clamp):  # x [N, C, ...], b [C] or None -> [N, C, ...]
        if b is None:
            y = x * gain
        else:
            y = torch.add((b * gain).reshape(1, -1, *[1] * (x.ndim - 2)), x, alpha=gain)
        _activate_(y, slope, clamp)
        ctx.save_for_backward(y)
        ctx.bias, ctx.slope, ctx.gain, ctx.clamp = b is not None, slope, gain, clamp
        return y

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        (y,) = ctx.saved_tensors
        dx = _PiecewiseLinearGradient.apply(dy, y, ctx.slope, ctx.gain, ctx.clamp)
        db = dx.sum([0, *range(2, dx.ndim)]) if ctx.bias and ctx.needs_input_grad[1] else None
        return dx, db, None, None, None


class _PiecewiseLinearGradient(torch.autograd.Function):
    """dx = dy * gain * slope(y): linear in dy, constant in y almost everywhere."""

    @staticmethod
    def forward(ctx, dy, y, slope, gain, clamp):  # dy, y [N, C, ...] -> [N, C, ...]
        ctx.save_for_backward(y)
        ctx.slope, ctx.gain, ctx.clamp = slope, gain, clamp
        if slope == 1:
            dx = dy * gain
        else:
            dx = torch.ops.aten.leaky_relu_backward(dy, y, slope, True)
            dx = dx if gain == 1 else dx.mul_(gain)
        if clamp is None:
            return dx
        bound = torch.tensor(clamp, dtype=y.dtype, device="cpu").item()  # rounded as in y
        return dx.masked_fill_(y.abs() >= bound, 0)

    @staticmethod
    def backward(ctx, *grads):
        (ddx,) = grads
        (y,) = ctx.saved_tensors
        return _PiecewiseLinearGradient.apply(ddx, y, ctx.slope, ctx.gain, ctx.clamp), None, None, None, None


def _activate_(
    y: Tensor,  # [N, C, ...] with the gain applied, changed in place
    slope: float,  # below zero
    clamp: float | None,
) -> None:
    """Activate and clamp in place."""
    if slope != 1:
        F.leaky_relu_(y, slope)
    if clamp is not None:
        y.clamp_(-clamp, clamp)


class Epilogue(torch.autograd.Function):
    """act(d y + strength noise + b), everything after a modulated convolution, in as few passes over memory as PyTorch
    operations allow."""

    @staticmethod
    def forward(ctx, y, d, b, noise, strength, slope, clamp):
        # y [N, O, H, W], d [N, O], b [O], noise [N or 1, 1, H, W] or None, strength [] or None -> [N, O, H, W]
        out = torch.addcmul(b[:, None, None], y, d[:, :, None, None])
        if noise is not None:
            out.add_((noise * strength).to(out.dtype))
        _activate_(out, slope, clamp)
        ctx.save_for_backward(y, d, noise, strength, out)
        ctx.activation = slope, 1, clamp
        return out

    @staticmethod
    def backward(ctx, *grads):
        (dout,) = grads
        y, d, noise, strength, out = ctx.saved_tensors
        need_y, need_d, need_b, need_noise, need_strength, *_ = ctx.needs_input_grad
        dpre = _PiecewiseLinearGradient.apply(dout, out, *ctx.activation)
        dy = dpre * d[:, :, None, None] if need_y else None
        dd = (dpre * y).sum([2, 3]) if need_d else None
        db = dpre.sum([0, 2, 3]) if need_b else None
        dnoise = dstrength = None
        if noise is not None and (need_noise or need_strength):
            over_channels = dpre.sum(1, keepdim=True).to(noise.dtype)  # [N, 1, H, W]
            dnoise = (over_channels * strength).sum_to_size(noise.shape) if need_noise else None
            dstrength = (over_channels * noise).sum().to(strength.dtype) if need_strength else None
        return dy, dd, db, dnoise, dstrength, None, None


# Convolution


def plain_convolution(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], transposed: [I, O, k, k]
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
) -> Tensor:  # [N, O, H', W']
    """Call PyTorch's convolution."""
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, w, stride=stride, padding=padding)


def convolve(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], transposed: [I, O, k, k]
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
) -> Tensor:  # [N, O, H', W']
    """Like `plain_convolution`, with custom gradients on the CPU, and there with `bfloat16_products` where chosen."""
    if x.device.type != "cpu":
        return plain_convolution(x, w, stride, padding, transposed)
    dtype = product_dtype(x, w, x.shape[2] * (stride if transposed else 1))
    return _Convolution.apply(x.to(dtype), w.to(dtype), stride, padding, transposed).to(x.dtype)


_features_only: ContextVar[bool] = ContextVar("features_only", default=False)


@contextlib.contextmanager
def feature_gradients_only() -> Iterator[None]:
    """Skip the weight gradients of convolutions, for `torch.autograd.grad` with respect to images or latents.

    PyTorch asks a function for the gradients of all its inputs; R1 and path length would discard these. Other threads
    are not affected: on the CPU, gradients are computed in the thread that asks for them.
    """
    before = _features_only.set(True)
    try:
        yield
    finally:
        _features_only.reset(before)


# Convolution is linear in x and in w, so the three functions below are closed under differentiation:
#   y = x * w,   dx = dy *T w,   dw = dy ** x,   and each derivative has one of these three forms again.


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, *params):  # [N, I, H, W], [O, I, k, k] (transposed: [I, O, k, k]) -> [N, O, H', W']
        ctx.save_for_backward(x, w)
        ctx.params = params
        return plain_convolution(x, w, *params)

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        x, w = ctx.saved_tensors
        dx = _InputGradient.apply(dy, w, x.shape, *ctx.params) if ctx.needs_input_grad[0] else None
        # Compiled code is reused outside the block: an extra gradient costs time, a missing one is wrong.
        skipped = not torch.compiler.is_compiling() and _features_only.get()
        needs_dw = ctx.needs_input_grad[1] and not skipped
        dw = _WeightGradient.apply(dy, x, w.shape, *ctx.params) if needs_dw else None
        return dx, dw, None, None, None


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, w, shape, *params):  # [N, O, H', W'], w -> [N, I, H, W]
        ctx.save_for_backward(dy, w)
        ctx.params = params
        x = torch.empty(shape, dtype=dy.dtype, memory_format=torch.channels_last)  # only its shape is read
        return _convolution_backward(dy, x, w, params, [True, False, False])[0]

    @staticmethod
    def backward(ctx, *grads):
        (ddx,) = grads
        dy, w = ctx.saved_tensors
        ddy = _Convolution.apply(ddx, w, *ctx.params) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(dy, ddx, w.shape, *ctx.params) if ctx.needs_input_grad[1] else None
        return ddy, dw, None, None, None, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, x, shape, *params):  # [N, O, H', W'], [N, I, H, W] -> w
        ctx.save_for_backward(dy, x)
        ctx.params = params
        if min(shape[:2]) >= 64 and dy.dtype != torch.bfloat16:
            # Many channels: oneDNN sums over pixels 2 to 4 times as fast in this layout; bfloat16 is up to 1.8 times as
            # fast without it.
            dy, x = dy.contiguous(), x.contiguous()
        w = torch.empty(shape, dtype=dy.dtype)  # only its shape is read
        return _convolution_backward(dy, x, w, params, [False, True, False])[1]

    @staticmethod
    def backward(ctx, *grads):
        (ddw,) = grads
        dy, x = ctx.saved_tensors
        ddy = _Convolution.apply(x, ddw, *ctx.params) if ctx.needs_input_grad[0] else None
        dx = _InputGradient.apply(dy, ddw, x.shape, *ctx.params) if ctx.needs_input_grad[1] else None
        return ddy, dx, None, None, None, None


def _convolution_backward(
    dy: Tensor,  # [N, O, H', W']
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], transposed: [I, O, k, k]
    params: tuple[int, int, bool],  # stride, padding, transposed
    output_mask: Sequence[bool],  # which gradients to compute: x, w, bias
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, transposed = params
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, output_mask
    )
