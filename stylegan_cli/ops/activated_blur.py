"""Bias and activation of a layer, and the filter that the next one starts with, in one pass: the numbers between them
are neither written nor read.

    y = f * clamp(gain act(x + b)),   dx = F'(x + b) (f^T * dy),   db = sum dx
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bias_act import ACTIVATIONS, negative_slope
from .dispatch import layout_of
from .epilogue import piecewise_epilogue
from .requested import requested_gradients
from .upfirdn2d import adjoint, upfirdn2d_cuda

VECTOR = 16  # bytes of neighboring channels that a thread of the kernel reads
Before = tuple[Tensor, str, float, float | None]  # b [C], activation, gain and clamp of a layer, which the next applies


def activated_blur(
    before: Before,
    x: Tensor,  # [N, C, H, W] on the GPU
    f: Tensor,  # [K]
    up: int,  # 1
    down: int,  # 1
    padding: tuple[int, int, int, int],  # left, right, top, bottom
    flip: bool,  # False
    gain: float,  # 1
) -> Tensor:  # [N, C, H', W']
    """upfirdn2d(clamp(gain act(x + b)), f, ...) with the kernel; in two steps where it has no fast case. Differentiable
    twice in x and b."""
    b, act, act_gain, clamp = before
    slope = negative_slope(act, ACTIVATIONS[act].alpha, act_gain)
    assert slope is not None and (up, down, flip, gain) == (1, 1, False, 1), "what the discriminator uses"
    if layout_of(x) != torch.channels_last or x.shape[1] * x.element_size() % VECTOR or f.shape != (4,):
        y = piecewise_epilogue(x, b=b, slope=slope, gain=act_gain, clamp=clamp)
        return upfirdn2d_cuda(y, f, up, down, padding, flip, gain)
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    small = b.to(acc), f.to(x.device, acc).contiguous()
    bound = math.inf if clamp is None else clamp
    return torch.ops.sgan.activated_blur(x, *small, padding, slope, act_gain, bound)


# The kernel: csrc/upfirdn2d.cu, bound by csrc/library.cpp. Its x is channels-last. `gain` and `clamp` are those of the
# activation.

torch.library.define(
    "sgan::activated_blur",
    "(Tensor x, Tensor b, Tensor f, int[] padding, float slope, float gain, float clamp) -> Tensor",
)


@torch.library.register_fake("sgan::activated_blur")
def _(x, b, f, padding, slope, gain, clamp):
    x0, x1, y0, y1 = padding
    h, w = x.shape[2] + y0 + y1 - len(f) + 1, x.shape[3] + x0 + x1 - len(f) + 1
    return torch.empty(*x.shape[:2], h, w, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def _setup(ctx, inputs, output):
    x, b, f, padding, *ctx.params = inputs
    ctx.save_for_backward(x, b, f)
    ctx.adjoint = adjoint(x.shape[2:], output.shape[2:], f, 1, 1, padding, False, 1.0)


def _gradient(ctx, dy):
    x, b, f = ctx.saved_tensors
    for_b = requested_gradients(ctx, (True, True, True))[1]
    dv = torch.ops.sgan.upfirdn2d(dy, f, *ctx.adjoint).contiguous(memory_format=torch.channels_last)
    dx, _, _, db = torch.ops.sgan.epilogue_backward(dv, x, None, None, None, for_b, *ctx.params, b)
    return dx, db if for_b else None, None, None, None, None, None


torch.library.register_autograd("sgan::activated_blur", _gradient, setup_context=_setup)
