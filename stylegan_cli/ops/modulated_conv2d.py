"""Modulated convolution, the core layer of StyleGAN2.

    y = act(d * conv(s * x, w) + strength * noise + b),   d_o = 1 / sqrt(sum_ik (w_oik s_i)^2 + eps)

Scaling the input by s and the output by d equals a convolution with per-sample weights w s d
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2.2), without computing them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .bias_act import ACTIVATIONS, bias_act, bias_act_reference, epilogue, negative_slope
from .composite import Epilogue, apply_epilogue_
from .conv2d import conv2d_resample_composite, conv2d_resample_cuda, conv2d_resample_reference, conv2d_resample_with
from .dispatch import choose
from .epilogue import piecewise_epilogue
from .modulation import EPS, HALF, modulation
from .upfirdn2d import upfirdn2d


class Prepared(NamedTuple):
    """What `modulated_conv2d` otherwise computes in every call, for a weight and a style that are prepared already."""

    d: Tensor | None  # [N, O] demodulation factors, as of `demodulation`; None: no demodulation
    packed: Tensor | None = None  # the weight of the fused kernel, as of `pack_weights`
    convolution: Callable[..., Tensor] | None = None  # that of the composite, such as one that keeps its packed weight


def prepare_weight(
    w: Tensor,  # [O, I, k, k]
    dtype: torch.dtype,  # of the layer's input
) -> tuple[Tensor, Tensor]:  # [O, I, k, k] not yet in this type, [O, I]
    """The weight of a demodulated layer for its convolution, and the sums of its squares over taps, for `demodulation`.

    Both depend on nothing else, and serve until the weight changes. Differentiable.
    """
    if dtype in HALF:
        # d cancels any common factor, which therefore has no gradient. With weights of at most 1 / sqrt(fan_in) and
        # styles of at most 1, the sum over 512 x 3 x 3 inputs of at most 256 stays below 17,400: half precision cannot
        # overflow.
        w = w.float() / (w[0].numel() ** 0.5 * w.detach().abs().amax([1, 2, 3], keepdim=True).clamp_min(EPS))
    return w, w.square().sum([2, 3])


def prepare_style(
    style: Tensor,  # [..., I]
    dtype: torch.dtype,  # of the layer's input
) -> Tensor:  # [..., I]
    """The style of a demodulated layer, see `prepare_weight`; zeros beyond its input channels change nothing."""
    if dtype not in HALF:
        return style
    largest = torch.linalg.vector_norm(style.detach(), math.inf, dim=-1, keepdim=True)  # one kernel
    return style.float() / largest.clamp_min(EPS)


def demodulation(
    style: Tensor,  # [..., N, I] from `prepare_style`
    squares: Tensor,  # [..., O, I] from `prepare_weight`
) -> Tensor:  # [..., N, O]
    """The factors d of one layer, or of several."""
    return (style.square() @ squares.mT + EPS).rsqrt()


def modulated_conv2d(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], k = 1 or 3
    style: Tensor,  # [N, I] scale of each input channel
    demodulate: bool = True,  # rescale the output to unit variance
    up: int = 1,  # upsampling factor, 1 or 2
    f: Tensor | None = None,  # [K] resampling filter, required if up is 2
    noise: Tensor | None = None,  # [N or 1, 1, H * up, W * up]
    noise_strength: Tensor | None = None,  # [] factor on the noise; None: 1
    b: Tensor | None = None,  # [O]
    act: str = "linear",  # activation, see `bias_act`
    gain: float | None = None,  # factor after the activation; None: the default of the activation
    clamp: float | None = None,  # upper bound of the absolute result; None: no bound
    scale: Tensor | None = None,  # [] factor after demodulation
    padding: int | None = None,  # zeros on each side; None: k // 2, for a 'same' convolution. Requires up = 1
    w_gain: float = 1.0,  # factor on w
    prepared: Prepared | None = None,  # w and style are those of `prepare_weight` and `prepare_style`. No gradients
) -> Tensor:  # [N, O, H * up, W * up]
    """Modulate, convolve, demodulate, add noise and bias, activate.

    Differentiable twice in x, w, style, noise, noise_strength and b. The weight and the style can have higher
    precision than x; the result has the type of x. Raises ValueError if shapes do not match.
    """
    _check(x, w, style, up, noise, b, act, padding)
    gain = ACTIVATIONS[act].gain if gain is None else float(gain)
    layer = _Layer(
        x, w, style, demodulate, up, f, noise, noise_strength, b, act, gain, clamp, scale, padding, w_gain, prepared
    )
    return _IMPLEMENTATIONS[choose(x.device.type, cuda=ACTIVATIONS[act].kernel, fused=_is_fusible(layer))](layer)


class _Layer(NamedTuple):
    """The validated arguments of `modulated_conv2d`."""

    x: Tensor  # [N, I, H, W]
    w: Tensor  # [O, I, k, k]
    style: Tensor  # [N, I]
    demodulate: bool
    up: int
    f: Tensor | None  # [K]
    noise: Tensor | None  # [N or 1, 1, H * up, W * up]
    strength: Tensor | None  # []
    b: Tensor | None  # [O]
    act: str
    gain: float
    clamp: float | None
    scale: Tensor | None  # []
    padding: int | None
    w_gain: float
    prepared: Prepared | None

    @property
    def slope(self) -> float | None:
        """Slope of the activation below zero, see `negative_slope`."""
        return negative_slope(self.act, ACTIVATIONS[self.act].alpha, self.gain)

    @property
    def scaled_noise(self) -> Tensor | None:  # [N or 1, 1, H * up, W * up]
        return self.noise if self.noise is None or self.strength is None else self.noise * self.strength


def _check(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    up: int,
    noise: Tensor | None,  # [N or 1, 1, H * up, W * up]
    b: Tensor | None,  # [O]
    act: str,
    padding: int | None,
) -> None:
    if style.shape != (x.shape[0], x.shape[1]) or w.shape[1] != x.shape[1]:
        raise ValueError(f"x {list(x.shape)}, w {list(w.shape)} and style {list(style.shape)} do not match")
    if b is not None and b.shape != (w.shape[0],):
        raise ValueError(f"b must have shape [{w.shape[0]}], not {list(b.shape)}")
    wider = 0 if padding is None else 2 * (padding - w.shape[-1] // 2)
    size = (1, x.shape[2] * up + wider, x.shape[3] * up + wider)
    if noise is not None and (noise.shape[1:] != size or noise.shape[0] not in (1, x.shape[0])):
        raise ValueError(
            f"noise must have shape [{x.shape[0]} or 1, {', '.join(map(str, size))}], not {list(noise.shape)}"
        )
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, not {act!r}")


def _reference(layer: _Layer) -> Tensor:  # [N, O, H * up, W * up]
    return _epilogue_reference(*_convolved(layer, conv2d_resample_reference), layer)


def _convolved(
    layer: _Layer,
    conv2d_resample: Callable[..., Tensor],
) -> tuple[Tensor, Tensor | None]:  # [N, O, H * up, W * up], [N, O]
    """The convolution of the modulated input, and its demodulation factors d."""
    w, style, d = _factors(layer)
    x = layer.x * style.to(layer.x.dtype)[:, :, None, None]
    return conv2d_resample(x, w.to(x.dtype), layer.f, layer.up, padding=layer.padding), d


def _factors(layer: _Layer) -> tuple[Tensor, Tensor, Tensor | None]:  # [O, I, k, k], [N, I], [N, O]
    """Weights and styles for the convolution, and the demodulation factors d."""
    w, style = layer.w, layer.style
    if layer.prepared:
        return w, style, layer.prepared.d
    w = w if layer.w_gain == 1 else w * layer.w_gain
    if not layer.demodulate:
        return w, style if layer.scale is None else style * layer.scale, None
    w, squares = prepare_weight(w, layer.x.dtype)
    style = prepare_style(style, layer.x.dtype)
    d = demodulation(style, squares)
    return w, style, d if layer.scale is None else d * layer.scale


def _epilogue_reference(
    y: Tensor,  # [N, O, H, W] result of the convolution
    d: Tensor | None,  # [N, O]
    layer: _Layer,
) -> Tensor:  # [N, O, H, W]
    if d is not None:
        y = y * d.to(y.dtype)[:, :, None, None]
    if (noise := layer.scaled_noise) is not None:
        y = y + noise.to(y.dtype)
    b = None if layer.b is None else layer.b.to(y.dtype)
    return bias_act_reference(y, b, layer.act, layer.gain, ACTIVATIONS[layer.act].alpha, layer.clamp)


def _composite(layer: _Layer) -> Tensor:  # [N, O, H * up, W * up]
    if layer.prepared and not layer.demodulate and layer.w.shape[-1] == 1:
        return _pointwise(layer)
    convolution = layer.prepared and layer.prepared.convolution
    y, d = _convolved(layer, conv2d_resample_with(convolution) if convolution else conv2d_resample_composite)
    noise, strength, b, slope = layer.noise, layer.strength, layer.b, layer.slope
    if slope is None or d is None or b is None:
        return _epilogue_reference(y, d, layer)
    # Moved inside the activation, the gain multiplies small tensors only.
    if noise is not None:
        strength = (noise.new_ones([]) if strength is None else strength) * layer.gain
    d, b = d.to(y.dtype) * layer.gain, b.to(y.dtype) * layer.gain
    if layer.prepared:
        return apply_epilogue_(y, y, d, b, noise, strength, slope, layer.clamp)
    return Epilogue.apply(y, d, b, noise, strength, slope, layer.clamp)


def _pointwise(layer: _Layer) -> Tensor:  # [N, O, H, W]
    """A 1x1 convolution to few channels: the product of each image with weights of its own reads the input once."""
    x, b = layer.x, layer.b
    w = (layer.w[:, :, 0, 0] * layer.style[:, None]).to(x.dtype)  # [N, O, I]
    if x.is_contiguous(memory_format=torch.channels_last):
        pixels = x.permute(0, 2, 3, 1)
        y = pixels.flatten(1, 2) @ w.mT  # [N, H * W, O]
        y = y.unflatten(1, pixels.shape[1:3]).permute(0, 3, 1, 2)
    else:
        y = (w @ x.flatten(2)).unflatten(2, x.shape[2:])
    return bias_act(y, None if b is None else b.to(y.dtype), layer.act, layer.gain, clamp=layer.clamp)


def _cuda(layer: _Layer) -> Tensor:  # [N, O, H * up, W * up]
    """cuDNN's convolution between the other kernels."""
    if layer.prepared:
        y, d = _convolved(layer, conv2d_resample_cuda)
    else:
        w, style, d = modulation(layer.w, layer.style, layer.w_gain, layer.x.dtype, layer.demodulate)
        if layer.scale is not None:
            style, d = (style * layer.scale, None) if d is None else (style, d * layer.scale)
        x = piecewise_epilogue(layer.x, style)  # unlike x * style, it has both gradients in one pass
        y = conv2d_resample_cuda(x, w, layer.f, layer.up, padding=layer.padding)
    alpha = ACTIVATIONS[layer.act].alpha
    return epilogue(y, d, layer.noise, layer.b, layer.act, layer.gain, alpha, layer.clamp, layer.strength)


# The fused kernel: csrc/modulated_conv2d.cu, bound by csrc/library.cpp. It computes the layer in one pass over memory.


def _is_fusible(layer: _Layer) -> bool:
    """Whether the fused kernel supports this layer. It becomes the default for a shape once benchmarks/results/ shows
    that it beats cuDNN between the other kernels; until then only ops.use('fused') calls it."""
    four_taps = layer.w.shape[-1] == 3 and layer.f is not None and layer.f.shape == (4,)
    same = layer.padding in (None, layer.w.shape[-1] // 2)
    return same and layer.x.dtype in HALF and layer.slope is not None and (layer.up == 1 or four_taps)


def _fused(layer: _Layer) -> Tensor:  # [N, O, H * up, W * up]
    w, style, d = _factors(layer)
    w = w.to(layer.x.dtype)
    packed = layer.prepared and layer.prepared.packed
    packed = pack_weights(w.detach()) if packed is None else packed
    operands = (style, d, layer.scaled_noise, layer.b, None if layer.up == 1 else layer.f)
    operands = (None if t is None else t.float().contiguous() for t in operands)
    clamp = math.inf if layer.clamp is None else layer.clamp
    return torch.ops.sgan.modulated_conv2d(layer.x, w, packed, *operands, layer.slope, layer.gain, clamp)


_IMPLEMENTATIONS = {"fused": _fused, "cuda": _cuda, "composite": _composite, "reference": _reference}


def pack_weights(
    w: Tensor,  # [O, I, k, k] half precision
) -> Tensor:  # [chunks, k k, rows, 32]
    """The weights as the fused kernel copies them to shared memory.

    For 32 input channels and a tap at a time, a tile of `rows` filters: O rounded up to 8 (1x1 only), 32, 64 or a
    multiple of 128, so that the kernel checks no bounds. Vector c of the four 16-byte vectors of a row is at position
    c ^ (row / 2 % 4), the 64-byte swizzle of wgmma (PTX ISA, section on its shared memory layout), which keeps ldmatrix
    free of bank conflicts as well.
    """
    o, i, k, _ = w.shape
    rows = 8 if k == 1 and o <= 8 else 32 if o <= 32 else 64 if o <= 64 else -(-o // 128) * 128
    chunks = -(-i // 32)
    w = F.pad(w.flatten(2), (0, 0, 0, chunks * 32 - i, 0, rows - o))
    w = w.reshape(rows, chunks, 4, 8, k * k).permute(1, 4, 0, 2, 3)
    c, row = torch.arange(4, device=w.device), torch.arange(rows, device=w.device)[:, None]
    index = c ^ (row // 2 % 4)  # [rows, 4]
    return w.gather(3, index[..., None].expand_as(w)).flatten(3)


torch.library.define(
    "sgan::modulated_conv2d",
    "(Tensor x, Tensor w, Tensor packed, Tensor style, Tensor? d, Tensor? noise, Tensor? b, Tensor? f, float slope, "
    "float gain, float clamp) -> Tensor",
)


@torch.library.register_fake("sgan::modulated_conv2d")
def _(x, w, packed, style, d, noise, b, f, slope, gain, clamp):
    up = 1 if f is None else 2
    size = (x.shape[0], w.shape[0], x.shape[2] * up, x.shape[3] * up)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _setup(ctx, inputs, output):
    x, w, _packed, style, d, noise, b, f, *ctx.params = inputs
    ctx.save_for_backward(x, w, style, d, noise, b, f, output)


def _backward(ctx, dout):
    """Gradient of y = act(d conv(style x, w) + noise + b), from operations that are differentiable again."""
    x, w, style, d, noise, b, f, y = ctx.saved_tensors
    slope, gain, clamp = ctx.params
    need_x, need_w, _, need_style, need_d, need_noise, need_b, *_ = ctx.needs_input_grad
    dp = torch.ops.sgan.bias_act_backward(dout, y, None, None, None, None, "lrelu", gain, slope, clamp)  # [N, O, H, W]
    dx = dw = dstyle = dd = dnoise = db = None
    if need_x or need_w or need_style:
        dconv = dp if d is None else dp * d.to(dp.dtype)[:, :, None, None]
        s = style.to(x.dtype)[:, :, None, None]
        dscaled, dw = _convolution_backward(dconv, x * s, w, f)
        dx = dscaled * s
        dstyle = (dscaled.to(style.dtype) * x).sum([2, 3])  # half precision would overflow
    if d is not None and need_d:
        # The result of the convolution can be recovered from y wherever dp is not zero.
        p = y.float() / gain
        p = torch.where(p > 0, p, p / slope if slope else 0.0)
        for term in (noise, None if b is None else b[:, None, None]):
            p = p if term is None else p - term
        dd = (dp * p).sum([2, 3]) / d
    if noise is not None and need_noise:
        dnoise = dp.sum(1, keepdim=True, dtype=noise.dtype).sum_to_size(noise.shape)
    if b is not None and need_b:
        db = dp.sum([0, 2, 3], dtype=b.dtype)
    return dx, dw, None, dstyle, dd, dnoise, db, None, None, None, None


def _convolution_backward(
    dy: Tensor,  # [N, O, H * up, W * up]
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    f: Tensor | None,  # [4] if up is 2
) -> tuple[Tensor, Tensor]:  # [N, I, H, W], [O, I, k, k]
    """Gradients of the convolution, which for up = 2 is transposed and followed by the filter."""
    if f is None:
        padding = [w.shape[-1] // 2] * 2
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy, x, w, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return dx, dw
    dy = upfirdn2d(dy, f, padding=2, flip=True, gain=4)  # [N, O, 2 H + 1, 2 W + 1]
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, w.transpose(0, 1), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, [True, True, False]
    )
    return dx, dw.transpose(0, 1)


torch.library.register_autograd("sgan::modulated_conv2d", _backward, setup_context=_setup)
