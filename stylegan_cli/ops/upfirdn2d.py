"""Resampling: insert zeros, pad, filter, keep every n-th sample.

y[i] = gain * sum_k f[k] * u[down * i - k],   u = x with up - 1 zeros after each sample, padded
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import choose, layout_of


def fir_filter(
    taps: Sequence[float],  # one row of a separable filter, such as 1, 3, 3, 1
) -> Tensor:  # [K] float32
    """A separable low-pass filter that preserves the mean of the image.

    It is on the CPU whatever the default device is: a network built on 'meta' needs the values of its filters, which
    no file contains.
    """
    f = torch.tensor(taps, dtype=torch.float32, device="cpu")
    return f / f.sum()


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K] applied along both axes, or [KH, KW]
    up: int = 1,  # upsampling factor, by zero insertion
    down: int = 1,  # downsampling factor: every down-th row and column is kept
    padding: int | tuple[int, int, int, int] = 0,  # left, right, top, bottom, in upsampled pixels; negative crops
    flip: bool = False,  # False: convolution, True: correlation
    gain: float = 1.0,  # factor on the result
) -> Tensor:  # [N, C, (H * up + top + bottom - KH) // down + 1, ...]
    """Upsample, pad, filter and downsample every channel.

    Differentiable any number of times in x; f is a constant. Raises ValueError if the padded image is smaller
    than the filter.
    """
    x0, x1, y0, y1 = (padding,) * 4 if isinstance(padding, int) else padding
    kh, kw = f.shape[0], f.shape[-1]
    h, w = x.shape[2] * up + y0 + y1, x.shape[3] * up + x0 + x1
    if h < kh or w < kw:
        raise ValueError(f"a {kh}x{kw} filter does not fit into a padded image of {h}x{w}")
    return _IMPLEMENTATIONS[choose(x.device.type)](x, f, up, down, (x0, x1, y0, y1), flip, float(gain))


def upfirdn2d_reference(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K] or [KH, KW]
    up: int,
    down: int,
    padding: tuple[int, int, int, int],  # left, right, top, bottom
    flip: bool,
    gain: float,
) -> Tensor:  # [N, C, H', W']
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    f = f.to(x.dtype)
    f = f if flip else f.flip(list(range(f.ndim)))
    if f.ndim == 2:
        return F.conv2d(x, (f * gain).expand(c, 1, -1, -1), stride=down, groups=c)
    x = F.conv2d(x, f.reshape(1, 1, -1, 1).expand(c, 1, -1, 1), stride=(down, 1), groups=c)
    return F.conv2d(x, (f * gain).reshape(1, 1, 1, -1).expand(c, 1, 1, -1), stride=(1, down), groups=c)


def _depthwise(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K] or [KH, KW]
    up: int,
    down: int,
    padding: tuple[int, int, int, int],  # left, right, top, bottom
    flip: bool,
    gain: float,
) -> Tensor:  # [N, C, H', W']
    """One depthwise convolution with built-in padding, transposed to upsample: for short filters much faster than zero
    insertion, padding and two passes. Filters and paddings that StyleGAN does not use fall back to the reference."""
    x0, x1, y0, y1 = padding
    kernel = f if f.ndim == 2 else f.outer(f)
    kh, kw = kernel.shape
    kernel = (kernel.flip([0, 1]) if flip == (up > 1) else kernel).to(x.dtype) * gain
    kernel = kernel.expand(x.shape[1], 1, -1, -1)
    if max(kh, kw) > 6:
        return upfirdn2d_reference(x, f, up, down, padding, flip, gain)
    if up == 1 and x0 == x1 >= 0 and y0 == y1 >= 0:
        return F.conv2d(x, kernel, stride=down, padding=(y0, x0), groups=x.shape[1])
    crop_y, crop_x = kh - 1 - y0, kw - 1 - x0  # from the full transposed convolution
    if up > 1 and down == 1 and crop_y == kh - up - y1 >= 0 and crop_x == kw - up - x1 >= 0:
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and min(y0, x0) >= 0:
            # oneDNN's transposed convolution takes 3 to 60 times as long in this type.
            n, c, h, w = x.shape
            zeros = x.new_zeros(n, (h - 1) * up + 1, (w - 1) * up + 1, c).permute(0, 3, 1, 2)
            zeros[:, :, ::up, ::up] = x
            return F.conv2d(zeros, kernel.flip([2, 3]), padding=(y0, x0), groups=c)
        return F.conv_transpose2d(x, kernel, stride=up, padding=(crop_y, crop_x), groups=x.shape[1])
    return upfirdn2d_reference(x, f, up, down, padding, flip, gain)


def adjoint(
    x_size: Sequence[int],  # H, W of the input
    y_size: Sequence[int],  # H, W of the output
    f: Tensor,  # [K] or [KH, KW]
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> tuple[int, int, tuple[int, int, int, int], bool, float]:
    """Arguments of the gradient, which is resampling with up and down exchanged and the filter flipped."""
    (h, w), (oh, ow), (x0, _, y0, _) = x_size, y_size, padding
    kh, kw = f.shape[0], f.shape[-1]
    back = (kw - 1 - x0, w * up - ow * down + x0 - up + 1, kh - 1 - y0, h * up - oh * down + y0 - up + 1)
    return down, up, back, not flip, gain


class _UpFirDn2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, f, *resampling):  # [N, C, H, W], [K] or [KH, KW] -> [N, C, H', W']
        y = _depthwise(x, f, *resampling)
        ctx.save_for_backward(f)
        ctx.adjoint = adjoint(x.shape[2:], y.shape[2:], f, *resampling)
        return y

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        (f,) = ctx.saved_tensors
        return _UpFirDn2d.apply(dy, f, *ctx.adjoint), None, None, None, None, None, None


# The kernel: csrc/upfirdn2d.cu, bound by csrc/library.cpp.


def upfirdn2d_cuda(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K] or [KH, KW]
    *resampling,  # remaining arguments of `upfirdn2d_reference`
) -> Tensor:  # [N, C, H', W']
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32  # accumulation type of the kernel
    return torch.ops.sgan.upfirdn2d(x, f.to(x.device, acc).contiguous(), *resampling)


upfirdn2d_composite = _UpFirDn2d.apply
_IMPLEMENTATIONS = {"cuda": upfirdn2d_cuda, "composite": upfirdn2d_composite, "reference": upfirdn2d_reference}

torch.library.define(
    "sgan::upfirdn2d", "(Tensor x, Tensor f, int up, int down, int[] padding, bool flip, float gain) -> Tensor"
)


@torch.library.register_fake("sgan::upfirdn2d")
def _(x, f, up, down, padding, flip, gain):
    x0, x1, y0, y1 = padding
    h = (x.shape[2] * up + y0 + y1 - f.shape[0]) // down + 1
    w = (x.shape[3] * up + x0 + x1 - f.shape[-1]) // down + 1
    return torch.empty(*x.shape[:2], h, w, dtype=x.dtype, device=x.device).to(memory_format=layout_of(x))


def _setup(ctx, inputs, output):
    x, f, *resampling = inputs
    ctx.save_for_backward(f)
    ctx.adjoint = adjoint(x.shape[2:], output.shape[2:], f, *resampling)


def _backward(ctx, dy):
    (f,) = ctx.saved_tensors
    dx = torch.ops.sgan.upfirdn2d(dy, f, *ctx.adjoint) if ctx.needs_input_grad[0] else None
    return dx, None, None, None, None, None, None


torch.library.register_autograd("sgan::upfirdn2d", _backward, setup_context=_setup)


def upsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K]
    resample: Callable[..., Tensor] = upfirdn2d,  # or one of its implementations
) -> Tensor:  # [N, C, 2H, 2W]
    """Double the size, preserving brightness."""
    k = f.shape[0]
    return resample(x, f, 2, 1, ((k + 1) // 2, (k - 2) // 2) * 2, False, 4.0)


def downsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K]
    resample: Callable[..., Tensor] = upfirdn2d,  # or one of its implementations
) -> Tensor:  # [N, C, H / 2, W / 2]
    """Halve the size, preserving brightness."""
    k = f.shape[0]
    return resample(x, f, 1, 2, ((k - 1) // 2, (k - 2) // 2) * 2, False, 1.0)


def blur2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [K] with odd K
) -> Tensor:  # [N, C, H, W]
    """Filter without resizing, preserving brightness. The image is zero beyond its edges."""
    return x if f.shape[0] == 1 else upfirdn2d(x, f, padding=f.shape[0] // 2)
