"""The image of one level of a generator with skip connections: the result of toRGB's convolution, with its bias, plus
the image of the level below.

    y = clamp(x + b, -c, c) + upsample2d(below)

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", figure 7. Images are summed in float32
whatever the precision of x is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bias_act import bias_act, bias_act_reference
from .dispatch import choose, layout_of
from .upfirdn2d import upfirdn2d_reference, upsample2d


def add_skip(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None = None,  # [C]
    below: Tensor | None = None,  # [N, C, H / 2, W / 2] in the type of the result; None at the lowest level
    f: Tensor | None = None,  # [K] resampling filter, required with an image below
    clamp: float | None = None,  # upper bound of the absolute value of x + b; None: no bound
) -> Tensor:  # [N, C, H, W] float32, or float64 if x is
    """Add a bias to every channel, clamp, and add the upsampled image of the level below.

    Differentiable twice in x, b and below; f is a constant. The kernel takes filters of four taps. Raises ValueError if
    the bias or the image below has the wrong shape, or the filter is missing.
    """
    n, c, h, w = x.shape
    if b is not None and b.shape != (c,):
        raise ValueError(f"b must have shape [{c}] for x of shape {list(x.shape)}, not {list(b.shape)}")
    if below is not None and below.shape != (n, c, h / 2, w / 2):
        raise ValueError(f"an image below of {list(below.shape)} does not fit x of {list(x.shape)}")
    if below is not None and f is None:
        raise ValueError("adding the image below needs a filter f")
    supported = below is None or (f is not None and f.shape == (4,) and below.dtype == image_dtype(x))
    return _IMPLEMENTATIONS[choose(x.device.type, cuda=supported)](x, b, below, f, clamp)


def image_dtype(x: Tensor) -> torch.dtype:
    """The type in which images are summed."""
    return torch.promote_types(x.dtype, torch.float32)


def _reference(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    below: Tensor | None,  # [N, C, H / 2, W / 2]
    f: Tensor | None,  # [K]
    clamp: float | None,
) -> Tensor:  # [N, C, H, W]
    image = bias_act_reference(x.to(image_dtype(x)), b, "linear", 1.0, 0.0, clamp)
    return image if below is None or f is None else upsample2d(below, f, upfirdn2d_reference) + image


def _composite(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    below: Tensor | None,  # [N, C, H / 2, W / 2]
    f: Tensor | None,  # [K]
    clamp: float | None,
) -> Tensor:  # [N, C, H, W]
    """The other ops, which on a GPU are kernels."""
    dtype = image_dtype(x)
    image = bias_act(x.to(dtype), None if b is None else b.to(dtype), clamp=clamp)
    return image if below is None or f is None else upsample2d(below, f) + image


# The kernel: csrc/add_skip.cu, bound by csrc/library.cpp.


def _cuda(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    below: Tensor | None,  # [N, C, H / 2, W / 2]
    f: Tensor | None,  # [4]
    clamp: float | None,
) -> Tensor:  # [N, C, H, W]
    f = x.new_zeros(4) if f is None or f.shape != (4,) else f  # there is no image below
    f, b = (None if t is None else t.to(x.device, image_dtype(x)).contiguous() for t in (f, b))
    return torch.ops.sgan.add_skip(x, b, below, f, math.inf if clamp is None else clamp)


_IMPLEMENTATIONS = {"cuda": _cuda, "composite": _composite, "reference": _reference}

torch.library.define("sgan::add_skip", "(Tensor x, Tensor? b, Tensor? below, Tensor f, float clamp) -> Tensor")


@torch.library.register_fake("sgan::add_skip")
def _(x, b, below, f, clamp):
    return torch.empty_like(x, dtype=image_dtype(x), memory_format=layout_of(x))


def _setup(ctx, inputs, output):
    x, b, _, f, ctx.clamp = inputs
    ctx.save_for_backward(x if ctx.clamp < math.inf else None, b, f)
    ctx.dtype = x.dtype


def _backward(ctx, dy):
    """From operations that are differentiable again."""
    x, b, f = ctx.saved_tensors
    need_x, need_b, need_below, *_ = ctx.needs_input_grad
    dx = db = dbelow = None
    if need_x or need_b:
        dx = dy.to(ctx.dtype)
        if x is not None:
            params = ("linear", 1.0, 0.0, ctx.clamp)
            dx = torch.ops.sgan.bias_act_backward(dx, None, x, None, None, b, *params)
        db = (dy if x is None else dx).sum([0, 2, 3], dtype=b.dtype) if need_b else None
    if need_below:  # the adjoint of upsample2d
        dbelow = torch.ops.sgan.upfirdn2d(dy, f, 1, 2, [1, 1, 1, 1], True, 4.0)
    return dx, db, dbelow, None, None


torch.library.register_autograd("sgan::add_skip", _backward, setup_context=_setup)
