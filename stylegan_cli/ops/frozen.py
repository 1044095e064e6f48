"""Ops of frozen networks on the kernels: each replaces several of those that networks with gradients use. They have no
derivatives. The kernels: csrc/modulation.cu, csrc/layer_end.cu and csrc/modulated_conv2d.cu, bound by csrc/library.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .modulation import HALF

LAYERS = 32  # that `frozen_styles` takes at most
IMAGE_CHANNELS = 3  # at most


class Image(NamedTuple):
    """The image of a level, clamp(w y + b, -c, c) + upsample2d(below), to be computed from features y [N, C, H, W]
    where they are made: see `add_skip`."""

    w: Tensor  # [N, K, C] modulated weights of toRGB, K <= IMAGE_CHANNELS
    b: Tensor  # [K]
    clamp: float | None
    below: Tensor | None  # [N, K, H / 2, W / 2] image of the level below
    f: Tensor  # [4] filter to upsample it
    alone: bool  # nothing else reads the features


def frozen_styles(
    styles: Tensor,  # [L, N, S] float32, of at most LAYERS layers, of which each takes the first
    weights: Tensor,  # of each layer [O, I], one after the other: sums of squares, or the weights of a toRGB
    inputs: Sequence[int],  # [L]
    outputs: Sequence[int],  # [L]
    is_torgb: Sequence[bool],  # [L]
    normalize: bool,  # for layers in half precision, see `prepare_style`
) -> tuple[list[Tensor], list[Tensor]]:  # [N, I] or, of a toRGB, [N, O, I]; [N, O] or, of a toRGB, [N, 0]
    """The prepared styles and demodulation factors of all layers, and the modulated weights of toRGBs."""
    n = styles.shape[1]
    out, d = torch.ops.sgan.frozen_styles(styles, weights, inputs, outputs, [int(x) for x in is_torgb], normalize)
    shapes = [(n, o, i) if image else (n, i) for i, o, image in zip(inputs, outputs, is_torgb, strict=True)]
    factors = [(n, 0 if image else o) for o, image in zip(outputs, is_torgb, strict=True)]
    return _views(out, shapes), _views(d, factors)


def _views(
    x: Tensor,
    shapes: Sequence[tuple[int, ...]],  # of tensors that follow each other, each from a multiple of 16 bytes on
) -> list[Tensor]:
    sizes = [math.prod(shape) for shape in shapes]
    parts = x.split([_aligned(size) for size in sizes])
    return [part[:size].view(shape) for part, size, shape in zip(parts, sizes, shapes, strict=True)]


def _aligned(size: int) -> int:
    """As many float32, rounded up to a multiple of 16 bytes, which the kernels read at once."""
    return -(-size // 4) * 4


def layer_end(
    x: Tensor,  # [N, C, H, W] result of a convolution, on the GPU; not float64
    d: Tensor,  # [N, C] demodulation factors
    noise: Tensor | None,  # [N or 1, 1, H, W]
    b: Tensor,  # [C]
    slope: float,  # of the activation below zero
    gain: float,  # above zero
    clamp: float | None,
    following: Tensor | None,  # [N, C] style of the layer that follows
    dtype: torch.dtype,  # of that layer: the type of x, or half precision
    image: Image | None,
) -> tuple[Tensor, Tensor | None]:  # [N, C, H, W], or [N, 0, H, W] if nobody reads it; [N, K, H, W]
    """y = clamp(gain act(d x + noise + b)), multiplied by the style of the layer that follows; and the image of the
    level, from y before that."""
    small = (None if t is None else t.float().contiguous() for t in (d, noise, b, following))
    half = 0 if dtype == x.dtype else HALF.index(dtype) + 1
    operands, bound, features = _image_operands(image)
    params = (slope, gain, math.inf if clamp is None else clamp)
    y, rgb = torch.ops.sgan.layer_end(x, *small, *operands, *params, bound, half, features)
    return y, None if image is None else rgb


def modulated_conv2d_image(
    x: Tensor,  # [N, I, H, W] half precision, on the GPU
    packed: Tensor,  # weight [O, I, 3, 3], see `pack_weights`
    style: Tensor,  # [N, I]
    d: Tensor,  # [N, O] demodulation factors; `takes_image` says which O and I
    noise: Tensor | None,  # [N or 1, 1, H, W]
    b: Tensor,  # [O]
    slope: float,  # of the activation below zero
    gain: float,  # above zero
    clamp: float | None,
    image: Image,
) -> tuple[Tensor, Tensor]:  # [N, O, H, W], or [N, 0, H, W] if nobody reads it; [N, K, H, W]
    """`modulated_conv2d` and the image of the level in one kernel."""
    small = (None if t is None else t.float().contiguous() for t in (style, d, noise, b))
    operands, bound, features = _image_operands(image)
    params = (slope, gain, math.inf if clamp is None else clamp)
    op = torch.ops.sgan.modulated_conv2d_image
    return op(x, packed, len(b), *small, *operands, *params, bound, features)


def takes_image(
    w: Tensor,  # [O, I, 3, 3]
) -> bool:
    """Whether a block of the fused kernel has all channels of its pixels."""
    o, i = w.shape[:2]
    return o <= 128 and o % 8 == 0 and i % 8 == 0


def _image_operands(
    image: Image | None,
) -> tuple[list[Tensor | None], float, bool]:
    """As the ops take them: tensors, clamp, and whether features are needed."""
    if image is None:
        return [None] * 4, math.inf, True
    operands = [None if t is None else t.float() for t in (image.w, image.b, image.below, image.f)]
    return operands, math.inf if image.clamp is None else image.clamp, not image.alone


_IMAGE = "Tensor? rgb, Tensor? rgb_b, Tensor? below, Tensor? below_f"
_PARAMS = "float slope, float gain, float clamp, float image_clamp"
torch.library.define(
    "sgan::frozen_styles",
    "(Tensor style, Tensor weight, int[] inputs, int[] outputs, int[] torgb, bool normalize) -> (Tensor out, Tensor d)",
)
torch.library.define(
    "sgan::layer_end",
    f"(Tensor x, Tensor scale, Tensor? noise, Tensor b, Tensor? following, {_IMAGE}, {_PARAMS}, int half, "
    "bool features) -> (Tensor y, Tensor image)",
)
torch.library.define(
    "sgan::modulated_conv2d_image",
    f"(Tensor x, Tensor packed, int channels, Tensor style, Tensor d, Tensor? noise, Tensor b, {_IMAGE}, {_PARAMS}, "
    "bool features) -> (Tensor y, Tensor image)",
)


@torch.library.register_fake("sgan::frozen_styles")
def _(style, weight, inputs, outputs, torgb, normalize):
    rows = list(zip(inputs, outputs, torgb, strict=True))
    n = style.shape[1]
    sizes = [n * i * (o if image else 1) for i, o, image in rows], [n * o for _, o, image in rows if not image]
    return tuple(style.new_empty(sum(map(_aligned, each))) for each in sizes)


@torch.library.register_fake("sgan::layer_end")
def _(x, scale, noise, b, following, rgb, rgb_b, below, below_f, slope, gain, clamp, image_clamp, half, features):
    return _results(x, x.shape[1], rgb, HALF[half - 1] if half else x.dtype, features)


@torch.library.register_fake("sgan::modulated_conv2d_image")
def _(x, packed, channels, style, d, noise, b, rgb, rgb_b, below, below_f, slope, gain, clamp, image_clamp, features):
    return _results(x, channels, rgb, x.dtype, features)


def _results(x: Tensor, channels: int, rgb: Tensor | None, dtype: torch.dtype, features: bool) -> tuple[Tensor, Tensor]:
    n, _, h, w = x.shape
    image = (0, 0, 0, 0) if rgb is None else (n, rgb.shape[1], h, w)
    options = {"device": x.device, "memory_format": torch.channels_last}
    y = torch.empty((n, channels if features else 0, h, w), dtype=dtype, **options)
    return y, torch.empty(image, dtype=torch.float32, **options)
