"""Modulated convolution, the layer that makes a StyleGAN2.

    y = act(d * conv(s * x, w) + strength * noise + b),   d_o = 1 / sqrt(sum_ik (w_oik s_i)^2 + eps)

Scaling the input by s and the output by d equals a convolution with per-sample weights w s d
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2), without making them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bias_act import ACTIVATIONS, PiecewiseLinearGradient, activate_, bias_act, slope_of
from .conv2d import conv2d_resample
from .dispatch import use_fast

EPS = 1e-8


def modulated_conv2d(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    style: Tensor,  # [N, I] scale of each input channel
    demodulate: bool = True,  # bring the output back to unit variance
    up: int = 1,  # 1, or 2: twice the size
    f: Tensor | None = None,  # [K] resampling filter, needed when up is 2
    noise: Tensor | None = None,  # [N or 1, 1, H * up, W * up]
    noise_strength: Tensor | None = None,  # [] factor on the noise; None: 1
    b: Tensor | None = None,  # [O]
    act: str = "linear",  # activation, see `bias_act`
    gain: float | None = None,  # factor after the activation; None: the activation's own
    clamp: float | None = None,  # bound on the result
    impl: str = "auto",  # 'auto' or 'reference'
) -> Tensor:  # [N, O, H * up, W * up]
    """Modulate, convolve, demodulate, add noise and bias, activate.

    Differentiable twice in x, w, style, noise, noise_strength and b. The weight and the style may be of higher
    precision than x; the result has x's type. Raises ValueError on shapes that do not fit.
    """
    _check(x, w, style, up, noise, b, act)
    if demodulate and x.dtype in (torch.float16, torch.bfloat16):
        # d undoes any common factor. With weights of at most 1 / sqrt(fan_in) and styles of at most 1, the sum over
        # 512 x 3 x 3 inputs of at most 256 stays below 17,400: half precision cannot overflow.
        w = w.float() / (w[0].numel() ** 0.5 * w.abs().amax([1, 2, 3], keepdim=True).clamp_min(EPS))
        style = style.float() / style.abs().amax(1, keepdim=True).clamp_min(EPS)
    y = x * style.to(x.dtype)[:, :, None, None]
    y = conv2d_resample(y, w.to(x.dtype), f, up=up, impl=impl)  # [N, O, H * up, W * up]
    d = None
    if demodulate:
        d = (style.square() @ w.square().sum([2, 3]).t() + EPS).rsqrt().to(x.dtype)  # [N, O]
    b = None if b is None else b.to(x.dtype)
    if noise is not None and noise_strength is None:
        noise_strength = noise.new_ones([])
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else float(gain)
    slope = slope_of(act, spec.alpha, gain)
    if use_fast(impl) and slope is not None and d is not None and b is not None:
        # The gain goes inside, where it multiplies small tensors only.
        strength = None if noise is None else noise_strength * gain
        return _Epilogue.apply(y, d * gain, b * gain, noise, strength, slope, clamp)
    return _epilogue_reference(y, d, b, noise, noise_strength, act, gain, clamp)


def _check(x: Tensor, w: Tensor, style: Tensor, up: int, noise: Tensor | None, b: Tensor | None, act: str) -> None:
    if style.shape != (x.shape[0], x.shape[1]) or w.shape[1] != x.shape[1]:
        raise ValueError(f"x {list(x.shape)}, w {list(w.shape)} and style {list(style.shape)} do not fit each other")
    if b is not None and b.shape != (w.shape[0],):
        raise ValueError(f"b must have shape [{w.shape[0]}], not {list(b.shape)}")
    size = (1, x.shape[2] * up, x.shape[3] * up)
    if noise is not None and (noise.shape[1:] != size or noise.shape[0] not in (1, x.shape[0])):
        raise ValueError(
            f"noise must have shape [{x.shape[0]} or 1, {', '.join(map(str, size))}], not {list(noise.shape)}"
        )
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, not {act!r}")


def _epilogue_reference(
    y: Tensor,  # [N, O, H, W]
    d: Tensor | None,  # [N, O]
    b: Tensor | None,  # [O]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    strength: Tensor | None,  # []
    act: str,
    gain: float,
    clamp: float | None,
) -> Tensor:  # [N, O, H, W]
    if d is not None:
        y = y * d[:, :, None, None]
    if noise is not None:
        y = y + (noise * strength).to(y.dtype)
    return bias_act(y, b, act=act, gain=gain, clamp=clamp, impl="reference")


class _Epilogue(torch.autograd.Function):
    """act(d y + strength noise + b) in as few passes over memory as PyTorch has operations for."""

    @staticmethod
    def forward(ctx, y, d, b, noise, strength, slope, clamp):  # see _epilogue_reference -> [N, O, H, W]
        out = torch.addcmul(b[:, None, None], y, d[:, :, None, None])
        if noise is not None:
            out.add_((noise * strength).to(out.dtype))
        activate_(out, slope, clamp)
        ctx.save_for_backward(y, d, noise, strength, out)
        ctx.how = slope, 1, clamp
        return out

    @staticmethod
    def backward(ctx, dout):
        y, d, noise, strength, out = ctx.saved_tensors
        need_y, need_d, need_b, need_noise, need_strength, *_ = ctx.needs_input_grad
        dpre = PiecewiseLinearGradient.apply(dout, out, *ctx.how)
        dy = dpre * d[:, :, None, None] if need_y else None
        dd = (dpre * y).sum([2, 3]) if need_d else None
        db = dpre.sum([0, 2, 3]) if need_b else None
        dnoise = dstrength = None
        if noise is not None and (need_noise or need_strength):
            over_channels = dpre.sum(1, keepdim=True).to(noise.dtype)  # [N, 1, H, W]
            dnoise = (over_channels * strength).sum_to_size(noise.shape) if need_noise else None
            dstrength = (over_channels * noise).sum().to(strength.dtype) if need_strength else None
        return dy, dd, db, dnoise, dstrength, None, None
