"""Modulated convolution, the layer that makes a StyleGAN2.

    y = act(d * conv(s * x, w) + strength * noise + b),   d_o = 1 / sqrt(sum_ik (w_oik s_i)^2 + eps)

Scaling the input by s and the output by d equals a convolution with per-sample weights w s d
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2), without making them.
"""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor
from torch.nn import functional as F

from .bias_act import ACTIVATIONS, PiecewiseLinearGradient, activate_, bias_act, epilogue, slope_of
from .conv2d import conv2d_resample
from .dispatch import choose

EPS = 1e-8
HALF = (torch.float16, torch.bfloat16)


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
    impl: str = "auto",  # 'auto', 'cuda' or 'reference'
) -> Tensor:  # [N, O, H * up, W * up]
    """Modulate, convolve, demodulate, add noise and bias, activate.

    Differentiable twice in x, w, style, noise, noise_strength and b. The weight and the style may be of higher
    precision than x; the result has x's type. Raises ValueError on shapes that do not fit.
    """
    _check(x, w, style, up, noise, b, act)
    path = choose(impl, x.device.type)
    if demodulate and x.dtype in HALF:
        # d undoes any common factor. With weights of at most 1 / sqrt(fan_in) and styles of at most 1, the sum over
        # 512 x 3 x 3 inputs of at most 256 stays below 17,400: half precision cannot overflow.
        w = w.float() / (w[0].numel() ** 0.5 * w.abs().amax([1, 2, 3], keepdim=True).clamp_min(EPS))
        style = style.float() / style.abs().amax(1, keepdim=True).clamp_min(EPS)
    d = (style.square() @ w.square().sum([2, 3]).t() + EPS).rsqrt() if demodulate else None  # [N, O]
    if noise is not None and noise_strength is not None and path == "cuda":
        noise, noise_strength = noise * noise_strength, None
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else float(gain)
    slope = slope_of(act, spec.alpha, gain)
    if path == "cuda" and fuses(x, w, up, f, slope):
        return _fused(x, w, style, d, noise, b, up, f, slope, gain, clamp)
    y = x * style.to(x.dtype)[:, :, None, None]
    y = conv2d_resample(y, w.to(x.dtype), f, up=up, impl=impl)  # [N, O, H * up, W * up]
    if path == "cuda":
        return epilogue(y, d, noise, b, act, gain, spec.alpha, clamp)
    d, b = (None if t is None else t.to(x.dtype) for t in (d, b))
    if noise is not None and noise_strength is None:
        noise_strength = noise.new_ones([])
    if path == "composite" and slope is not None and d is not None and b is not None:
        # The gain goes inside, where it multiplies small tensors only.
        strength = None if noise is None else noise_strength * gain
        return _Epilogue.apply(y, d * gain, b * gain, noise, strength, slope, clamp)
    return _epilogue_reference(y, d, b, noise, noise_strength, act, gain, clamp)


def _check(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    up: int,
    noise: Tensor | None,  # [N or 1, 1, H * up, W * up]
    b: Tensor | None,  # [O]
    act: str,
) -> None:
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


# The fused kernel: csrc/modulated_conv2d.cu by csrc/library.cpp. It makes the whole layer in one pass over memory.


def fuses(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    up: int,
    f: Tensor | None,  # [K]
    slope: float | None,  # of the activation, see `slope_of`
) -> bool:
    """Whether the fused kernel takes this layer. It enters for a shape by beating the convolution between our other
    kernels in a results file of benchmarks/; until then only SGAN_FUSED=1 calls it."""
    able = x.dtype in HALF and slope is not None and (up == 1 or (w.shape[-1] == 3 and f.shape == (4,)))
    return able and os.environ.get("SGAN_FUSED") == "1"


def _fused(
    x: Tensor,  # [N, I, H, W] half precision
    w: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    d: Tensor | None,  # [N, O]
    noise: Tensor | None,  # [N or 1, 1, H * up, W * up]
    b: Tensor | None,  # [O]
    up: int,
    f: Tensor | None,  # [4]
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:  # [N, O, H * up, W * up]
    phases = 1 if up == 1 else 4
    w = (w if up == 1 else phase_weights(w, f)).to(x.dtype)
    style, d, noise, b = (None if t is None else t.float().contiguous() for t in (style, d, noise, b))
    clamp = math.inf if clamp is None else clamp
    return torch.ops.sgan.modulated_conv2d(x, w, style, d, noise, b, None, phases, slope, gain, clamp)


def phase_weights(
    w: Tensor,  # [O, I, 3, 3]
    f: Tensor,  # [4]
) -> Tensor:  # [4 O, I, 3, 3]
    """The weights that make output pixel (2i + r, 2j + s) from the 3x3 input pixels around (i, j), phase 2r + s.

    A transposed convolution of stride 2 and the filter after it are one convolution with 6x6 taps K, of which every
    output pixel meets 3x3: y[j] = sum_i K[j - 2i] x[i],  K[m] = 4 sum_a w[a] f[3 - (a - m + 1)],  m = -2 ... 3.
    """
    o, i = w.shape[:2]
    g = F.pad(f.to(w.dtype).flip(0), (2, 2))  # [8]
    # One side. Phase r, input pixel i + t - 1: K[r - 2 (t - 1)] is three taps of f, two further on for the next t.
    side = 2 * torch.stack([g[1:].unfold(0, 3, 2), g[:-1].unfold(0, 3, 2)])  # [2, 3, 3]: r, t, a
    return torch.einsum("rta,sub,oiab->rsoitu", side, side, w).reshape(4 * o, i, 3, 3)


torch.library.define(
    "sgan::modulated_conv2d",
    "(Tensor x, Tensor w, Tensor style, Tensor? d, Tensor? noise, Tensor? b, Tensor? skip, int phases, "
    "float slope, float gain, float clamp) -> Tensor",
)


@torch.library.register_fake("sgan::modulated_conv2d")
def _(x, w, style, d, noise, b, skip, phases, slope, gain, clamp):
    side = 2 if phases == 4 else 1
    size = (x.shape[0], w.shape[0] // phases, x.shape[2] * side, x.shape[3] * side)
    dtype = x.dtype if skip is None else torch.float32
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _setup(ctx, inputs, output):
    x, w, style, d, noise, b, skip, *ctx.how = inputs
    if skip is not None and any(ctx.needs_input_grad):
        raise RuntimeError("with a skip picture the fused kernel has no gradient: add the picture outside")
    ctx.save_for_backward(x, w, style, d, noise, b, output)


def _backward(ctx, dout):
    """Of y = act(d conv(style x, w) + noise + b), made of operations that can be differentiated again."""
    x, w, style, d, noise, b, y = ctx.saved_tensors
    phases, slope, gain, clamp = ctx.how
    need_x, need_w, need_style, need_d, need_noise, need_b, *_ = ctx.needs_input_grad
    dp = torch.ops.sgan.bias_act_backward(dout, y, None, None, None, None, "lrelu", gain, slope, clamp)  # [N, O, H, W]
    dx = dw = dstyle = dd = dnoise = db = None
    if need_x or need_w or need_style:
        dconv = dp if d is None else dp * d.to(dp.dtype)[:, :, None, None]
        if phases == 4:  # [N, O, 2H, 2W] -> [N, 4 O, H, W]
            n, o, h, wide = dconv.shape
            dconv = dconv.reshape(n, o, h // 2, 2, wide // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, -1, *x.shape[2:])
        s = style.to(x.dtype)[:, :, None, None]
        dscaled, dw, _ = torch.ops.aten.convolution_backward(
            dconv, x * s, w, None, [1, 1], [w.shape[-1] // 2] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
        )
        dx = dscaled * s
        dstyle = (dscaled.to(style.dtype) * x).sum([2, 3])  # half would overflow
    if need_d:
        # What the convolution gave follows from y wherever dp is not zero.
        p = y.float() / gain
        p = torch.where(p > 0, p, p / slope if slope else 0.0)
        for term in (noise, None if b is None else b[:, None, None]):
            p = p if term is None else p - term
        dd = (dp * p).sum([2, 3]) / d
    if need_noise:
        dnoise = dp.sum(1, keepdim=True, dtype=noise.dtype).sum_to_size(noise.shape)
    if need_b:
        db = dp.sum([0, 2, 3], dtype=b.dtype)
    return dx, dw, dstyle, dd, dnoise, db, None, None, None, None, None


torch.library.register_autograd("sgan::modulated_conv2d", _backward, setup_context=_setup)
