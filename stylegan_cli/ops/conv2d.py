"""Convolution with twofold resampling: what modulated convolution and the discriminator are made of.

On the CPU the gradients are our own: they compute what PyTorch's do, each in the memory layout that is fast for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import choose
from .upfirdn2d import downsample2d, upfirdn2d, upsample2d


def conv2d_resample(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    f: Tensor | None = None,  # [K] resampling filter, needed when up or down is 2
    up: int = 1,  # 1 or 2
    down: int = 1,  # 1 or 2
    impl: str = "auto",
) -> Tensor:  # [N, O, H * up / down, W * up / down]
    """A 'same' convolution with twofold resampling: up after it (true convolution), or down before it (correlation).

    The zeros of the upsampled picture are never multiplied: up = 2 is a transposed convolution followed by the filter.
    Raises ValueError on other factors, or if the filter is missing.
    """
    if (up, down) not in ((1, 1), (2, 1), (1, 2)):
        raise ValueError(f"up {up} and down {down}: one of them may be 2, the rest is 1")
    if f is None and (up, down) != (1, 1):
        raise ValueError("resampling needs a filter f")
    k = w.shape[-1]
    if up == 2 and k == 1:
        return upsample2d(_conv2d(x, w, impl=impl), f, impl=impl)
    if up == 2:
        x = _conv2d(x, w.transpose(0, 1), stride=2, transposed=True, impl=impl)  # [N, O, 2H + k - 2, 2W + k - 2]
        p = f.shape[0] - k + 1
        return upfirdn2d(x, f, padding=((p + 1) // 2, p // 2) * 2, gain=4, impl=impl)
    if down == 2 and k == 1:
        return _conv2d(downsample2d(x, f, impl=impl), w, impl=impl)
    if down == 2:
        p = f.shape[0] + k - 3
        x = upfirdn2d(x, f, padding=((p + 1) // 2, p // 2) * 2, impl=impl)
        return _conv2d(x, w, stride=2, impl=impl)
    return _conv2d(x, w, padding=k // 2, impl=impl)


_features_only = False


@contextlib.contextmanager
def feature_gradients_only() -> Iterator[None]:
    """For `torch.autograd.grad` with respect to pictures or latents: convolutions leave out their weights' gradients.

    PyTorch asks a function for the gradients of all its inputs; R1 and path length would throw these away.
    """
    global _features_only
    before, _features_only = _features_only, True
    try:
        yield
    finally:
        _features_only = before


def _conv2d(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, transposed: bool = False, *, impl: str) -> Tensor:
    if choose(impl, x.device.type) == "composite" and x.device.type == "cpu":
        return _Conv2d.apply(x, w, stride, padding, transposed)
    return _convolve(x, w, stride, padding, transposed)


def _convolve(x: Tensor, w: Tensor, stride: int, padding: int, transposed: bool) -> Tensor:
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, w, stride=stride, padding=padding)


# Convolution is linear in x and in w, so the three functions below are closed under differentiation:
#   y = x * w,   dx = dy *T w,   dw = dy ** x,   and the derivatives of each are again of these three forms.


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, *how):  # [N, I, H, W], [O, I, k, k] (transposed: [I, O, k, k]) -> [N, O, H', W']
        ctx.save_for_backward(x, w)
        ctx.how = how
        return _convolve(x, w, *how)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dx = _InputGradient.apply(dy, w, x.shape, *ctx.how) if ctx.needs_input_grad[0] else None
        wanted = ctx.needs_input_grad[1] and not _features_only
        dw = _WeightGradient.apply(dy, x, w.shape, *ctx.how) if wanted else None
        return dx, dw, None, None, None


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, w, shape, *how):  # [N, O, H', W'], w -> [N, I, H, W]
        ctx.save_for_backward(dy, w)
        ctx.how = how
        x = torch.empty(shape, dtype=dy.dtype, memory_format=torch.channels_last)  # only its shape is read
        return _convolution_backward(dy, x, w, how, [True, False, False])[0]

    @staticmethod
    def backward(ctx, ddx):
        dy, w = ctx.saved_tensors
        ddy = _Conv2d.apply(ddx, w, *ctx.how) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(dy, ddx, w.shape, *ctx.how) if ctx.needs_input_grad[1] else None
        return ddy, dw, None, None, None, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, x, shape, *how):  # [N, O, H', W'], [N, I, H, W] -> w
        ctx.save_for_backward(dy, x)
        ctx.how = how
        if min(shape[:2]) >= 64:  # many channels: oneDNN sums over pixels 2 to 4 times as fast in this layout
            dy, x = dy.contiguous(), x.contiguous()
        w = torch.empty(shape, dtype=dy.dtype)  # only its shape is read
        return _convolution_backward(dy, x, w, how, [False, True, False])[1]

    @staticmethod
    def backward(ctx, ddw):
        dy, x = ctx.saved_tensors
        ddy = _Conv2d.apply(x, ddw, *ctx.how) if ctx.needs_input_grad[0] else None
        dx = _InputGradient.apply(dy, ddw, x.shape, *ctx.how) if ctx.needs_input_grad[1] else None
        return ddy, dx, None, None, None, None


def _convolution_backward(dy: Tensor, x: Tensor, w: Tensor, how: tuple[int, int, bool], wanted: list[bool]) -> tuple:
    stride, padding, transposed = how
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, wanted
    )
