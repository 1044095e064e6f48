"""Modulated convolution, the layer that makes a StyleGAN2.

    y = act(d * conv(s * x, w) + strength * noise + b),   d_o = 1 / sqrt(sum_ik (w_oik s_i)^2 + eps)

Scaling the input by s and the output by d equals a convolution with per-sample weights w s d
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2), without making them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bias_act import bias_act
from .conv2d import conv2d_resample

EPS = 1e-8


def modulated_conv2d(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    style: Tensor,  # [N, I] scale of each input channel
    demodulate: bool = True,  # bring the output back to unit variance
    up: int = 1,  # 1, or 2: twice the size
    f: Tensor | None = None,  # [K] resampling filter, needed when up is 2
    noise: Tensor | None = None,  # [N or 1, 1, H * up, W * up]
    noise_strength: Tensor | None = None,  # [] factor on the noise
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
    if style.shape != (x.shape[0], x.shape[1]) or w.shape[1] != x.shape[1]:
        raise ValueError(f"x {list(x.shape)}, w {list(w.shape)} and style {list(style.shape)} do not fit each other")
    if demodulate and x.dtype in (torch.float16, torch.bfloat16):
        # d undoes any common factor, so taking the largest norm out keeps half precision from overflowing.
        w = w / w.square().mean([1, 2, 3], keepdim=True).sqrt().clamp_min(EPS)
        style = style / style.abs().amax(1, keepdim=True).clamp_min(EPS)
    y = x * style.to(x.dtype)[:, :, None, None]
    y = conv2d_resample(y, w.to(x.dtype), f, up=up, impl=impl)  # [N, O, H * up, W * up]
    if demodulate:
        d = (style.square() @ w.square().sum([2, 3]).t() + EPS).rsqrt()  # [N, O]
        y = y * d.to(x.dtype)[:, :, None, None]
    if noise is not None:
        y = y + (noise * noise_strength).to(x.dtype)
    return bias_act(y, None if b is None else b.to(x.dtype), act=act, gain=gain, clamp=clamp, impl=impl)
