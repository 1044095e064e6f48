"""What a modulated convolution does to its weights and styles before it multiplies images.

    w' = f_o w,   q_oi = sum_k w'_oik^2,   s' = f_n s,   d_no = 1 / sqrt(sum_i q_oi s'_ni^2 + eps)

Where demodulation follows, d cancels any common factor: in half precision f_o = 1 / (sqrt(fan_in) max |w_o|) and
f_n = 1 / max |s_n| keep all numbers small, elsewhere they are a constant gain and 1. As they cancel, their own gradient
is zero: they are constants. The reference is `prepare_weight`, `prepare_style` and `demodulation` in
modulated_conv2d.py; the kernels, csrc/modulation.cu, are bound by csrc/library_training.cpp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .requested import no_third_derivative, requested_gradients

EPS = 1e-8
HALF = (torch.float16, torch.bfloat16)


def modulation(
    w: Tensor,  # [O, I, k, k] on the GPU
    style: Tensor,  # [N, I]
    gain: float,  # of the weights
    dtype: torch.dtype,  # of the images and w'
    demodulate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:  # [O, I, k, k] w', [N, I] s', [N, O] d, if demodulated
    """w', s' and d from two kernels. Differentiable twice."""
    normalize = demodulate and dtype in HALF
    w, q = scaled_weights(w, gain, dtype, normalize)
    if not demodulate:
        return w, style, None
    style, d, _ = torch.ops.sgan.modulation_styles(style.to(q.dtype), q, normalize)
    return w, style, d


def scaled_weights(
    w: Tensor,  # [O, I, k, k] on the GPU
    gain: float,
    dtype: torch.dtype,  # of w'
    normalize: bool = False,  # to the largest magnitude that is safe in half precision, instead of the gain
) -> tuple[Tensor, Tensor]:  # [O, I, k, k] w', [O, I] q
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    half = HALF.index(dtype) + 1 if dtype in HALF else 0
    w, q, _ = torch.ops.sgan.modulation_weights(w.to(acc), gain, normalize, half)
    return w, q


torch.library.define(
    "sgan::modulation_weights",
    "(Tensor w, float gain, bool normalize, int half) -> (Tensor w, Tensor q, Tensor factor)",
)
torch.library.define("sgan::modulation_weights_backward", "(Tensor? gw, Tensor? gq, Tensor w, Tensor factor) -> Tensor")
torch.library.define(
    "sgan::modulation_styles", "(Tensor style, Tensor q, bool normalize) -> (Tensor style, Tensor d, Tensor factor)"
)
torch.library.define(
    "sgan::modulation_styles_backward",
    "(Tensor? gstyle, Tensor gd, Tensor style, Tensor d, Tensor q, Tensor factor, bool for_q) -> (Tensor, Tensor)",
)
torch.library.define(
    "sgan::modulation_styles_double_backward",
    "(Tensor u, Tensor gd, Tensor style, Tensor d, Tensor q, Tensor factor) -> "
    "(Tensor cgs, Tensor cgd, Tensor cs, Tensor cd, Tensor cq)",
)


@torch.library.register_fake("sgan::modulation_weights")
def _(w, gain, normalize, half):
    out = torch.empty_like(w, dtype=HALF[half - 1] if half else w.dtype)
    return out, w.new_empty(w.shape[:2]), w.new_empty(w.shape[0])


@torch.library.register_fake("sgan::modulation_weights_backward")
def _(gw, gq, w, factor):
    return torch.empty_like(w)


@torch.library.register_fake("sgan::modulation_styles")
def _(style, q, normalize):
    return style.new_empty(style.shape), style.new_empty(len(style), len(q)), style.new_empty(len(style))


@torch.library.register_fake("sgan::modulation_styles_backward")
def _(gstyle, gd, style, d, q, factor, for_q):
    return torch.empty_like(style), q.new_empty(len(q) if for_q else 0, q.shape[1])


@torch.library.register_fake("sgan::modulation_styles_double_backward")
def _(u, gd, style, d, q, factor):
    return tuple(torch.empty_like(t) for t in (style, d, style, d, q))


def _setup_weights(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[2])


def _weights_gradient(ctx, gw, gq, _):
    if gw is None and gq is None:
        return None, None, None, None
    gq = None if gq is None else gq.contiguous()
    return torch.ops.sgan.modulation_weights_backward(gw, gq, *ctx.saved_tensors), None, None, None


def _setup_weights_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _weights_second(ctx, u):
    """dw = f (gw + 2 f w gq), f a constant"""
    gw, gq, w, factor = ctx.saved_tensors
    fu = u * factor[:, None, None, None]
    cgw = cgq = cw = None
    if gw is not None:
        cgw = fu.to(gw.dtype)
    if gq is not None:
        twice = 2 * fu * factor[:, None, None, None]
        cgq, cw = (twice * w).sum([2, 3]), twice * gq[:, :, None, None]
    return cgw, cgq, cw, None


def _setup_styles(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], output[1], inputs[1], output[2])


def _styles_gradient(ctx, gstyle, gd, _):
    if gd is None:
        return None if gstyle is None else gstyle * ctx.saved_tensors[3][:, None], None, None
    for_q = requested_gradients(ctx, (True, True, False))[1]
    gstyle = None if gstyle is None else gstyle.contiguous()
    ds, gq = torch.ops.sgan.modulation_styles_backward(gstyle, gd.contiguous(), *ctx.saved_tensors, for_q)
    return ds, gq if for_q else None, None


def _setup_styles_backward(ctx, inputs, output):
    *tensors, ctx.for_q = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _styles_second(ctx, u, h):
    """With e = -gd d^3 / 2:   ds = f (gs + 2 s' (e q)),   gq = e^T s'^2"""
    gstyle, gd, style, d, q, factor = ctx.saved_tensors
    cgs = cgd = cs = cd = cq = None
    if u is not None:
        second = torch.ops.sgan.modulation_styles_double_backward
        cgs, cgd, cs, cd, cq = second(u.contiguous(), gd, style, d, q, factor)
    if h is not None and ctx.for_q:  # no phase of training needs these
        e, ce = gd * d.pow(3) * -0.5, style.square() @ h.t()
        parts = ce * d.pow(3) * -0.5, 2 * style * (e @ h), ce * gd * d.square() * -1.5
        cgd, cs, cd = parts if u is None else (a + b for a, b in zip((cgd, cs, cd), parts, strict=True))
    return cgs if gstyle is not None else None, cgd, cs, cd, cq, None, None


_register = torch.library.register_autograd
_register("sgan::modulation_weights", _weights_gradient, setup_context=_setup_weights)
_register("sgan::modulation_weights_backward", _weights_second, setup_context=_setup_weights_backward)
_register("sgan::modulation_styles", _styles_gradient, setup_context=_setup_styles)
_register("sgan::modulation_styles_double_backward", no_third_derivative)
_register("sgan::modulation_styles_backward", _styles_second, setup_context=_setup_styles_backward)
