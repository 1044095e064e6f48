"""Custom derivatives for the fast path without kernels, where those of PyTorch's autograd would be slower.

Bias and activation save only their output. CPU convolutions give the same results as PyTorch's, each in the memory
layout that is fastest for it. All are differentiable any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .products import product_dtype
from .requested import requested_gradients

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
        ctx.tensors, ctx.slope, ctx.gain, ctx.clamp = (True, b is not None), slope, gain, clamp
        return y

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        (y,) = ctx.saved_tensors
        dx = _PiecewiseLinearGradient.apply(dy, y, ctx.slope, ctx.gain, ctx.clamp)
        db = dx.sum([0, *range(2, dx.ndim)]) if requested_gradients(ctx, ctx.tensors)[1] else None
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
        out = apply_epilogue_(torch.empty_like(y), y, d, b, noise, strength, slope, clamp)
        ctx.save_for_backward(y, d, noise, strength, out)
        ctx.activation = slope, 1, clamp
        ctx.tensors = (True, True, True, noise is not None, strength is not None)
        return out

    @staticmethod
    def backward(ctx, *grads):
        (dout,) = grads
        y, d, noise, strength, out = ctx.saved_tensors
        need_y, need_d, need_b, need_noise, need_strength = requested_gradients(ctx, ctx.tensors)
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


def apply_epilogue_(
    out: Tensor,  # [N, O, H, W], changed; may be y
    y: Tensor,  # [N, O, H, W]
    d: Tensor,  # [N, O]
    b: Tensor,  # [O]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    strength: Tensor | None,  # [] factor on the noise
    slope: float,
    clamp: float | None,
) -> Tensor:  # out
    torch.addcmul(b[:, None, None], y, d[:, :, None, None], out=out)
    if noise is not None:
        out.add_((noise if strength is None else noise * strength).to(out.dtype))
    _activate_(out, slope, clamp)
    return out


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
    again: Tensor | None = None,  # w, to which the second derivatives pass their gradients; None: to w itself
) -> Tensor:  # [N, O, H', W']
    """Like `plain_convolution`, with custom gradients on CPUs and CUDA: none that are not requested, and second
    derivatives by the same few functions, where PyTorch's transpose the images; on a CPU with `bfloat16_products` where
    chosen."""
    if x.device.type == "mps":
        return plain_convolution(x, w, stride, padding, transposed)
    dtype = product_dtype(x, w, x.shape[2] * (stride if transposed else 1))
    w, again = w.to(dtype), None if again is None else again.to(dtype)
    return _Convolution.apply(x.to(dtype), w, again, stride, padding, transposed).to(x.dtype)


class PackedConvolution:
    """`plain_convolution` of one constant weight, without gradients. On a CPU it keeps the weight of its first call in
    the layout in which oneDNN multiplies, into which PyTorch converts it in every call: for small images, that takes
    longer than the convolution."""

    def __init__(self) -> None:
        self._packed: dict[torch.dtype, Tensor] = {}  # by the type of the products

    def __call__(
        self,
        x: Tensor,  # [N, I, H, W]
        w: Tensor,  # [O, I, k, k], transposed: [I, O, k, k]; the same in every call
        stride: int = 1,
        padding: int = 0,
        transposed: bool = False,
    ) -> Tensor:  # [N, O, H', W']
        features, dtype = x.dtype, product_dtype(x, w, x.shape[2] * (stride if transposed else 1))
        if not _can_pack(x, dtype):
            return plain_convolution(x.to(dtype), w.to(dtype), stride, padding, transposed).to(features)
        x = x.to(dtype, memory_format=torch.channels_last)
        size, common = [stride] * 2, ([1, 1], 1)  # dilation, groups
        if transposed:
            geometry = [padding] * 2, [0, 0], size, *common
            pack, run = _onednn._reorder_convolution_transpose_weight, _onednn._convolution_transpose_pointwise
        else:
            geometry = [padding] * 2, size, *common
            pack, run = _onednn._reorder_convolution_weight, _onednn._convolution_pointwise
        if dtype not in self._packed:
            self._packed[dtype] = pack(w.to(dtype), *geometry, list(x.shape))
        return run(x, self._packed[dtype], None, *geometry, "none", [], "").to(features)


_onednn = torch.ops.mkldnn


def _can_pack(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has oneDNN, and convolutions of such an input and type use it."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(_onednn, "_reorder_convolution_transpose_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _onednn._is_mkldnn_bf16_supported())


# Convolution is linear in x and in w, so the three functions below are closed under differentiation:
#   y = x * w,   dx = dy *T w,   dw = dy ** x,   and each derivative has one of these three forms again.


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, again, *params):  # [N, I, H, W], [O, I, k, k] (transposed: [I, O, k, k]) -> [N, O, H', W']
        ctx.save_for_backward(x, w if again is None else again)
        ctx.params = params
        return plain_convolution(x, w, *params)

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        x, w = ctx.saved_tensors
        requested = requested_gradients(ctx, (True, True))
        dx = _InputGradient.apply(dy, w, x, *ctx.params) if requested[0] else None
        dw = _WeightGradient.apply(dy, x, w.shape, *ctx.params) if requested[1] else None
        return dx, dw, None, None, None, None


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, w, x, *params):  # [N, O, H', W'], w, [N, I, H, W] of which the shape is read -> [N, I, H, W]
        ctx.save_for_backward(dy, w)
        ctx.params = params
        if dy.device.type == "cpu":  # the layout matters
            x = torch.empty(x.shape, dtype=dy.dtype, memory_format=torch.channels_last)
        return _convolution_backward(dy, x, w, params, [True, False, False])[0]

    @staticmethod
    def backward(ctx, *grads):
        (ddx,) = grads
        dy, w = ctx.saved_tensors
        ddy = _Convolution.apply(ddx, w, None, *ctx.params) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(dy, ddx, w.shape, *ctx.params) if ctx.needs_input_grad[1] else None
        return ddy, dw, None, None, None, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, x, shape, *params):  # [N, O, H', W'], [N, I, H, W] -> w
        ctx.save_for_backward(dy, x)
        ctx.params = params
        layout = torch.channels_last
        if dy.device.type == "cpu":
            layout = torch.contiguous_format
            if min(shape[:2]) >= 64 and dy.dtype != torch.bfloat16:
                # Many channels: oneDNN sums over pixels 2 to 4 times as fast in this layout; bfloat16 is up to 1.8
                # times as fast without it.
                dy, x = dy.contiguous(), x.contiguous()
        w = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=layout)  # only its shape is read
        return _convolution_backward(dy, x, w, params, [False, True, False])[1]

    @staticmethod
    def backward(ctx, *grads):
        (ddw,) = grads
        dy, x = ctx.saved_tensors
        ddy = _Convolution.apply(x, ddw, None, *ctx.params) if ctx.needs_input_grad[0] else None
        dx = _InputGradient.apply(dy, ddw, x, *ctx.params) if ctx.needs_input_grad[1] else None
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
