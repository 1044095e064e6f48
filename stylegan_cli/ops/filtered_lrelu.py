"""Leaky ReLU at a higher sampling rate, so that the frequencies it adds are filtered out instead of aliased.

    u = x + b with up - 1 zeros after each sample, padded
    h = up^2 gain (fu * u),   q = clamp(lrelu(h), -c, c),   y = every down-th sample of (fd * q)

Both filters keep only samples that they cover completely ("valid"). For given signs of h the op is linear in x, and its
gradient is the same map with the filters exchanged and flipped, in which stored bits replace the activation.

Karras et al., "Alias-Free Generative Adversarial Networks", section 3.1 and appendix D.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from .bias_act import bias_act
from .dispatch import choose, layout_of
from .filters import separable_pairs
from .tiles import Resampling, Tile, map_tiles
from .upfirdn2d import upfirdn2d_reference

# Numbers of separable filters that the kernel can use instead of one that is not, and the largest relative error of
# their sum.
PAIRS = {torch.float16: ((2, 3), 5e-4), torch.bfloat16: ((2, 3), 5e-4), torch.float32: ((3, 4), 5e-7)}


def filtered_lrelu(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None = None,  # [C]
    fu: Tensor | None = None,  # [K] applied along both axes, or [KH, KW]: filter after upsampling; None: no filter
    fd: Tensor | None = None,  # [K] or [KH, KW]: filter before downsampling; None: no filter
    up: int = 1,  # upsampling factor, by zero insertion
    down: int = 1,  # downsampling factor: every down-th row and column is kept
    padding: int | tuple[int, int, int, int] = 0,  # left, right, top, bottom, in upsampled pixels; negative crops
    gain: float = math.sqrt(2),  # positive factor before the clamp
    slope: float = 0.2,  # of the activation below zero; 1: linear
    clamp: float | None = None,  # upper bound of the absolute value after the activation; None: no bound
    flip: bool = False,  # False: convolution, True: correlation
) -> Tensor:  # [N, C, (H * up + top + bottom - KH_u - KH_d + 1) // down + 1, ...]
    """Add a bias, upsample, activate, clamp and downsample every channel.

    The bias is added before the padding, which stays zero. Differentiable any number of times in x and b; the filters
    are constants. Raises ValueError if the bias has the wrong shape, the gain is not positive, a filter has fewer taps
    than its factor, or the padded image is smaller than the filters.
    """
    sides = (padding, padding, padding, padding) if isinstance(padding, int) else padding
    if b is not None and b.shape != (x.shape[1],):
        raise ValueError(f"b must have shape [{x.shape[1]}] for x of shape {list(x.shape)}, not {list(b.shape)}")
    if not gain > 0:
        raise ValueError(f"gain must be positive, not {gain}")
    if fu is None and fd is None and (up, down, *sides) == (1, 1, 0, 0, 0, 0):
        return bias_act(x, b, "lrelu", gain, slope, clamp)
    fu, fd = (torch.ones(1, device=x.device) if f is None else f for f in (fu, fd))
    for name, f, factor in (("fu", fu, up), ("fd", fd, down)):
        if min(f.shape) < factor:
            raise ValueError(f"{name} needs at least {factor} taps for a factor of {factor}, not {min(f.shape)}")
    resampling = Resampling(up, down, sides, flip, float(gain) * up**2)
    if min(resampling.output_size(x, fu, fd)) < 1:
        size, pad = f"{x.shape[2]}x{x.shape[3]}", ", ".join(map(str, sides))
        raise ValueError(f"the filters do not fit into an image of {size}, upsampled by {up} and padded by {pad}")
    supported = max(up, down) <= 4 and max(*fu.shape, *fd.shape) <= 32
    return _IMPLEMENTATIONS[choose(x.device.type, cuda=supported)](x, b, fu, fd, resampling, float(slope), clamp)


def filtered_lrelu_reference(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    fu: Tensor,  # [K] or [KH, KW]
    fd: Tensor,  # [K] or [KH, KW]
    resampling: Resampling,
    slope: float,
    clamp: float | None,
) -> Tensor:  # [N, C, H', W']
    up, down, padding, flip, gain, _ = resampling
    x = x if b is None else x + b.to(x.dtype)[:, None, None]
    q = F.leaky_relu(upfirdn2d_reference(x, fu, up, 1, padding, flip, gain), slope)
    q = q if clamp is None else q.clamp(-clamp, clamp)
    return upfirdn2d_reference(q, fd, 1, down, (0, 0, 0, 0), flip, 1.0)


# The composite, tile by tile. For the derivatives it stores two bits per activated sample: 1 negative, 2 clamped. Those
# of four channels share a byte.


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, b, fu, fd, resampling, slope, clamp, differentiable):
        # x [N, C, H, W], b [C] or None, fu and fd [K] or [KH, KW] -> [N, C, H', W']
        rows, columns = resampling.activated_size(x, fu, fd)
        size = (x.shape[0], rows, columns, -(-x.shape[1] // 4)) if differentiable else (0,)
        bits = torch.empty(size, dtype=torch.uint8, device=x.device)

        def activate(q, tile):
            code = (q < 0).view(torch.uint8) if differentiable else None
            F.leaky_relu_(q, slope)
            if code is not None:
                if clamp is not None and (q.device.type != "cpu" or max(map(abs, q.aminmax())) > clamp):
                    code.add_(q.abs() > clamp, alpha=2)
                part, r, c = _bits_of(bits, tile, resampling)
                part.copy_(_pack(code)[:, r, c, : part.shape[3]])
            if clamp is not None:
                q.clamp_(-clamp, clamp)

        y = map_tiles(x, b, fu, fd, resampling, activate)
        ctx.save_for_backward(bits, fu, fd)
        ctx.adjoint, ctx.slope, ctx.bias = resampling.adjoint(x, fu, fd), slope, None if b is None else b.dtype
        return y

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        bits, fu, fd = ctx.saved_tensors
        dx = _Linear.apply(dy, bits, fd, fu, ctx.adjoint, ctx.slope)
        db = dx.sum([0, 2, 3], dtype=ctx.bias) if ctx.needs_input_grad[1] else None
        return dx, db, None, None, None, None, None, None


class _Linear(torch.autograd.Function):
    """The op with the stored bits instead of the activation. Its gradient is of the same form."""

    @staticmethod
    def forward(ctx, x, bits, fu, fd, resampling, slope):
        # x [N, C, H, W], bits [N, H_h, W_h, C / 4], fu and fd [K] or [KH, KW] -> [N, C, H', W']
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        codes = torch.arange(256)[:, None] >> torch.tensor([0, 2, 4, 6]) & 3
        table = torch.tensor([1.0, slope, 0.0, 0.0], dtype=dtype)[codes].to(x.device)  # [256, 4]

        def multiply(q, tile):
            part, r, c = _bits_of(bits, tile, resampling)
            factors = F.embedding(part.int(), table).flatten(3)
            q[:, r, c, : factors.shape[3]].mul_(factors)  # elsewhere nothing arrives

        ctx.save_for_backward(bits, fu, fd)
        ctx.adjoint, ctx.slope = resampling.adjoint(x, fu, fd), slope
        return map_tiles(x, None, fu, fd, resampling, multiply)

    @staticmethod
    def backward(ctx, *grads):
        (ddx,) = grads
        bits, fu, fd = ctx.saved_tensors
        return _Linear.apply(ddx, bits, fd, fu, ctx.adjoint, ctx.slope), None, None, None, None, None


def _bits_of(
    bits: Tensor,  # [N, H_h, W_h, C / 4]
    tile: Tile,
    resampling: Resampling,
) -> tuple[Tensor, slice, slice]:  # [n, h, w, c / 4], and the rows and columns of the tile that these belong to
    (rows, columns), own = tile.overlap(bits.shape[1:3], resampling.offset)
    return bits[tile.samples, rows, columns, tile.channels.start // 4 : -(-tile.channels.stop // 4)], *own


def _pack(
    code: Tensor,  # [N, H, W, C] uint8
) -> Tensor:  # [N, H, W, C / 4] uint8
    four = code.view(torch.int32)  # a | b << 8 | c << 16 | d << 24
    shifts = 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6  # no two shifted codes share a bit: nothing is carried
    return (four * shifts >> 24).to(torch.uint8)  # a | b << 2 | c << 4 | d << 6


def _composite(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    *arguments,  # remaining arguments of `filtered_lrelu_reference`
) -> Tensor:  # [N, C, H', W']
    return _Composite.apply(x, b, *arguments, _is_differentiable(x, b))


def _is_differentiable(x: Tensor, b: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))


# The kernel: csrc/filtered_lrelu.cu, bound by csrc/library.cpp. Its codes are words of 16 samples along x.


def filtered_lrelu_cuda(
    x: Tensor,  # [N, C, H, W]
    b: Tensor | None,  # [C]
    fu: Tensor,  # [K] or [KH, KW]
    fd: Tensor,  # [K] or [KH, KW]
    resampling: Resampling,
    slope: float,
    clamp: float | None,
) -> Tensor:  # [N, C, H', W']
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32  # accumulation type of the kernel
    pairs = None
    if x.dtype in PAIRS and fu.ndim != fd.ndim:
        pairs = _pairs(fu if fu.ndim == 2 else fd, *PAIRS[x.dtype])
    b, pairs = (None if t is None else t.to(x.device, acc) for t in (b, pairs))
    fu, fd = (f.to(x.device, acc).contiguous() for f in (fu, fd))
    bound = math.inf if clamp is None else float(clamp)
    y, _ = torch.ops.sgan.filtered_lrelu(x, b, fu, fd, pairs, *resampling[:5], slope, bound, _is_differentiable(x, b))
    return y


_known_pairs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # filter -> its version, {counts: its pairs}


def _pairs(
    f: Tensor,  # [KH, KW]
    counts: tuple[int, ...],  # ascending
    error: float,
) -> Tensor | None:  # [count, KH + KW] on the device of f, of the smallest possible count; None: there is none
    """Decompose a filter, once: that needs the CPU."""
    if torch.compiler.is_compiling():  # the numbers are unknown
        return None
    version = None if f.is_inference() else f._version
    known = _known_pairs.get(f)
    pairs = known[1] if known and version is not None and known[0] == version else {}
    if counts not in pairs:
        y, x = separable_pairs(f, error)
        count = min((count for count in counts if count >= len(y)), default=None)
        padded = None if count is None else F.pad(torch.cat([y, x], dim=1), (0, 0, 0, count - len(y)))
        pairs[counts], _known_pairs[f] = padded, (version, pairs)
    return pairs[counts]


_IMPLEMENTATIONS = {"cuda": filtered_lrelu_cuda, "composite": _composite, "reference": filtered_lrelu_reference}

torch.library.define(
    "sgan::filtered_lrelu",
    "(Tensor x, Tensor? b, Tensor fu, Tensor fd, Tensor? pairs, int up, int down, int[] padding, bool flip, float gain,"
    " float slope, float clamp, bool differentiable) -> (Tensor, Tensor)",
)
torch.library.define(
    "sgan::filtered_lrelu_linear",
    "(Tensor x, Tensor codes, Tensor fu, Tensor fd, Tensor? pairs, int up, int down, int[] padding, bool flip,"
    " float gain, float slope, int[] offset) -> Tensor",
)


def _resampled(x: Tensor, fu: Tensor, fd: Tensor, resampling: Resampling) -> Tensor:
    return x.new_empty((*x.shape[:2], *resampling.output_size(x, fu, fd))).to(memory_format=layout_of(x))


@torch.library.register_fake("sgan::filtered_lrelu")
def _(x, b, fu, fd, pairs, up, down, padding, flip, gain, slope, clamp, differentiable):
    resampling = Resampling(up, down, tuple(padding), flip, gain)
    rows, columns = resampling.activated_size(x, fu, fd)
    size = (x.shape[0] if differentiable else 0, x.shape[1], rows, (columns + 15) // 16)
    codes = torch.empty(size, dtype=torch.int32, device=x.device).to(memory_format=layout_of(x))
    return _resampled(x, fu, fd, resampling), codes


@torch.library.register_fake("sgan::filtered_lrelu_linear")
def _(x, codes, fu, fd, pairs, up, down, padding, flip, gain, slope, offset):
    return _resampled(x, fu, fd, Resampling(up, down, tuple(padding), flip, gain))


def _setup(ctx, inputs, output):
    x, b, fu, fd, pairs, up, down, padding, flip, gain, slope, *_ = inputs
    _save(ctx, x, output[1], fu, fd, pairs, Resampling(up, down, tuple(padding), flip, gain), slope)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the codes


def _setup_linear(ctx, inputs, output):
    x, codes, fu, fd, pairs, up, down, padding, flip, gain, slope, offset = inputs
    _save(ctx, x, codes, fu, fd, pairs, Resampling(up, down, tuple(padding), flip, gain, tuple(offset)), slope)


def _save(ctx, x, codes, fu, fd, pairs, resampling, slope):
    ctx.save_for_backward(codes, fu, fd, pairs)
    ctx.adjoint, ctx.slope = resampling.adjoint(x, fu, fd), slope


def _gradient(ctx, dy: Tensor | None) -> Tensor | None:
    if dy is None:
        return None
    codes, fu, fd, pairs = ctx.saved_tensors
    *adjoint, offset = ctx.adjoint
    return torch.ops.sgan.filtered_lrelu_linear(dy, codes, fd, fu, pairs, *adjoint, ctx.slope, offset)


def _backward(ctx, dy, _):
    dx, db = _gradient(ctx, dy), None
    if dx is not None and ctx.needs_input_grad[1]:
        db = dx.sum([0, 2, 3], dtype=torch.float64 if dx.dtype == torch.float64 else torch.float32)
    return dx, db, *[None] * 11


def _backward_linear(ctx, ddx):
    return _gradient(ctx, ddx), *[None] * 11


torch.library.register_autograd("sgan::filtered_lrelu", _backward, setup_context=_setup)
torch.library.register_autograd("sgan::filtered_lrelu_linear", _backward_linear, setup_context=_setup_linear)
