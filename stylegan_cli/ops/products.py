"""bfloat16 products: float32 convolutions whose operands are rounded to bfloat16, on CPUs that multiply in it.

y = r(r(x) * r(w)),   r: rounding to 8 significant bits; sums have float32 precision

Such a convolution takes half the time (AVX512-BF16) or less (AMX). Everything between convolutions stays in float32, so
that an image differs less from the float32 one than with half-precision features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from .dispatch import choose

MIN_PIXELS = 64 * 64  # of images that are generated: smaller ones take little of their time in convolutions
MIN_PIXELS_TRAINING = 32 * 32  # gradients have twice as many convolutions, and their batches are larger
MIN_CHANNELS = 16  # with fewer, a convolution is bound by memory, and rounding costs more than it saves

_min_height: ContextVar[int | None] = ContextVar("lowest height with bfloat16 products", default=None)


def prefers_bfloat16(
    device: torch.device,
    height: int,  # of the images
    width: int,
    training: bool = False,
) -> bool:
    """Whether networks of such images run faster with bfloat16: on a processor with instructions that multiply in it
    (AMX or AVX512-BF16), if PyTorch uses them. Without them it emulates bfloat16, more slowly than float32."""
    least = MIN_PIXELS_TRAINING if training else MIN_PIXELS
    if device.type != "cpu" or height * width < least or not torch.backends.mkldnn.is_available():
        return False
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def takes_bfloat16_products(
    device: torch.device,
) -> bool:
    """Whether `bfloat16_products` has an effect on this device, fast or not."""
    return device.type == "cpu" and choose("cpu") == "composite"


@contextlib.contextmanager
def bfloat16_products(
    min_height: int | None = 0,  # of the larger of input and output; None: none
) -> Iterator[None]:
    """In this context, convolutions of float32 tensors on a CPU multiply in bfloat16, and so do their gradients.
    Those with few channels and other implementations than the composite are not affected."""
    token = _min_height.set(min_height)
    try:
        yield
    finally:
        _min_height.reset(token)


def product_dtype(
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k], transposed: [I, O, k, k]
    height: int,  # the larger of input's and output's
) -> torch.dtype:
    """The type that a convolution multiplies in."""
    if torch.compiler.is_compiling():  # context variables cannot be traced
        return x.dtype
    lowest = _min_height.get()
    applies = lowest is not None and x.dtype == torch.float32 and height >= lowest and min(w.shape[:2]) >= MIN_CHANNELS
    return torch.bfloat16 if applies else x.dtype
