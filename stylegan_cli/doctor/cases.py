"""What `sgan doctor` compares: for each kernel functions that call it, and their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import (
    add_skip,
    append_minibatch_std,
    bias_act,
    downsample2d,
    equalized_conv2d,
    filtered_lrelu,
    fir_filter,
    has_kernels,
    lowpass_filter,
    modulated_conv2d,
    scaled_weights_of_layers,
    upsample2d,
)
from ..ops.frozen import Image, frozen_styles, layer_end, modulated_conv2d_image
from ..ops.modulated_conv2d import HALF, demodulation, pack_weights


@dataclass(frozen=True)
class Case:
    kernel: str
    functions: tuple[Callable[..., Tensor], ...]  # function(*inputs); the first one is timed
    inputs: Callable[..., list[Tensor]]  # (n, c, h, w) -> tensors; the first is converted to the kernel's type
    dtypes: tuple[torch.dtype, ...] = (torch.float32, *HALF)
    implementation: str = "cuda"  # or 'fused'
    parts: tuple[str, ...] = ("forward", "gradients")  # what is compared


# Inputs stay away from the kinks of activation and clamp, where rounding decides which slope applies.


def _signs(shape: Sequence[int]) -> Tensor:
    return torch.randint(0, 2, shape) * 2.0 - 1


def _bias_act_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    return [3 * _signs((n, c, h, w)) + 0.3 * torch.randn(n, c, h, w), 4 * _signs((c,))]


def _bias_act(act: str, clamp: float | None = None) -> Callable[..., Tensor]:
    return lambda x, b: bias_act(x, b.to(x.dtype), act=act, clamp=clamp)


def _fir(x: Tensor) -> Tensor:
    return fir_filter([1, 3, 3, 1]).to(x.device)


def _add_skip_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    """Of images: three channels, and twice the size of the image below."""
    x = 3 * _signs((n, 3, 2 * h, 2 * w)) + 0.3 * torch.randn(n, 3, 2 * h, 2 * w)
    return [x, 4 * _signs((3,)), torch.randn(n, 3, h, w)]


def _deviation_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    """Of the lowest level. The images differ: at equal ones, derivatives are steep. Two would have no second ones."""
    return [0.3 * torch.randn(4 * n, 8 * c, 4, 4) + 3 * torch.arange(4 * n)[:, None, None, None]]


def _add_skip(x: Tensor, b: Tensor, below: Tensor) -> Tensor:
    return add_skip(x, b, below, _fir(x), clamp=5)


def _filtered(up: int, padding: tuple[int, int], radial: bool = False) -> Callable[..., Tensor]:
    """A layer of StyleGAN3. The kernel's own rounding is too small to change slopes."""
    fu, fd = lowpass_filter(6 * up, 0.25 / up, 0.1, 1), lowpass_filter(12, 0.2, 0.1, 1, radial)

    def function(x: Tensor, b: Tensor) -> Tensor:
        filters = fu.to(x.device), fd.to(x.device)
        return filtered_lrelu(x, b.to(x.dtype), *filters, up, 2, (*padding, *padding), clamp=1.5)

    return function


def _modulated_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    weight, style = torch.randn(c, c, 3, 3) / math.sqrt(9 * c), 1 + 0.3 * torch.randn(n, c)
    return [torch.randn(n, c, h, w), weight, style, 0.1 * torch.randn(n, 1, h, w), 6 * _signs((c,))]


def _modulated(up: int) -> Callable[..., Tensor]:
    def function(x: Tensor, w: Tensor, style: Tensor, noise: Tensor, b: Tensor) -> Tensor:
        noise = noise.repeat(1, 1, up, up)
        return modulated_conv2d(x, w, style, up=up, f=_fir(x), noise=noise, b=b, act="lrelu")

    return function


def _downsampling_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    return [*_bias_act_inputs(n, c, h, w), torch.randn(c, c, 3, 3) / math.sqrt(9 * c)]


def _downsampling(x: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """A layer of the discriminator, with bias and activation of the one before it."""
    scaled = scaled_weights_of_layers([w], [0.5], x.dtype)[0] if has_kernels(x.device) else None
    before = b, "lrelu", 1.0, 5.0
    return equalized_conv2d(x, w, None, _fir(x), down=2, w_gain=0.5, scaled=scaled, before=before)


# The kernels of frozen networks, which have no derivatives, and what they compute in the operations of other networks.


def _style_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    """Of a layer and a toRGB."""
    return [torch.randn(2, n, c, 1), torch.rand(2 * c, c), torch.randn(3, c)]


def _styles(x: Tensor, squares: Tensor, rgb: Tensor) -> Tensor:
    x = x.flatten(2)
    if has_kernels(x.device):
        weights = torch.cat([squares.flatten(), rgb.flatten()])
        inputs, outputs = [rgb.shape[1]] * 2, [len(squares), len(rgb)]
        prepared, factors = frozen_styles(x, weights, inputs, outputs, [False, True], True)
        return torch.cat([t.flatten() for t in (*prepared, factors[0])])
    style = x[0] / x[0].abs().amax(1, keepdim=True)
    return torch.cat([t.flatten() for t in (style, x[1][:, None] * rgb, demodulation(style, squares))])


def _layer_end_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    """Of an even size, twice that of the image below."""
    x, _, following, noise, _ = _modulated_inputs(n, c, h // 2 * 2, w // 2 * 2)
    return [x, torch.rand(n, c) + 0.5, noise, 9 * _signs((c,)), following, *_image_inputs(n, c, h, w)]


def _image_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    return [torch.randn(n, 3, c) / math.sqrt(c), torch.randn(3), torch.randn(n, 3, h // 2, w // 2)]


def _layer_end(
    x: Tensor, d: Tensor, noise: Tensor, b: Tensor, following: Tensor, w: Tensor, rgb_b: Tensor, below: Tensor
) -> Tensor:
    if has_kernels(x.device):
        image = Image(w, rgb_b, 5, below, _fir(x), False)
        y, rgb = layer_end(x, d, noise, b, 0.2, 1, None, following, x.dtype, image)
    else:
        y = x * d[:, :, None, None].to(x.dtype) + noise.to(x.dtype)
        y = bias_act(y, b.to(x.dtype), "lrelu", gain=1)
        y, rgb = y * following[:, :, None, None].to(x.dtype), _image(y, w, rgb_b, below)
    assert rgb is not None
    return torch.cat([y.flatten(), rgb.to(y.dtype).flatten()])


def _image(y: Tensor, w: Tensor, b: Tensor, below: Tensor) -> Tensor:
    rgb = (w.to(y.dtype) @ y.flatten(2)).unflatten(2, y.shape[2:])
    return add_skip(rgb, b, below, _fir(below), clamp=5)


def _with_image_inputs(n: int, c: int, h: int, w: int) -> list[Tensor]:
    x, weight, style, noise, b = _modulated_inputs(n, c, h // 2 * 2, w // 2 * 2)
    return [x, weight.bfloat16().float(), style, torch.rand(n, c) + 0.5, noise, b, *_image_inputs(n, c, h, w)]


def _with_image(
    x: Tensor, w: Tensor, style: Tensor, d: Tensor, noise: Tensor, b: Tensor, rgb: Tensor, rgb_b: Tensor, below: Tensor
) -> Tensor:
    if has_kernels(x.device):
        image = Image(rgb, rgb_b, 5, below, _fir(x), False)
        y, pixels = modulated_conv2d_image(x, pack_weights(w.to(x.dtype)), style, d, noise, b, 0.2, 1, None, image)
    else:
        y = F.conv2d(x * style[:, :, None, None].to(x.dtype), w.to(x.dtype), padding=1)
        y = bias_act(y * d[:, :, None, None].to(x.dtype) + noise.to(x.dtype), b.to(x.dtype), "lrelu", gain=1)
        pixels = _image(y, rgb, rgb_b, below)
    return torch.cat([y.flatten(), pixels.to(y.dtype).flatten()])


CASES = (
    Case("bias_act", (_bias_act("lrelu", 5), _bias_act("swish")), _bias_act_inputs),
    Case(
        "upfirdn2d",
        (lambda x: upsample2d(x, _fir(x)), lambda x: downsample2d(x, _fir(x))),
        lambda *size: [torch.randn(*size)],
    ),
    Case("add_skip", (_add_skip,), _add_skip_inputs),
    Case(
        "minibatch_std",
        (lambda x: append_minibatch_std(x, 4),),
        _deviation_inputs,
    ),
    Case(
        "filtered_lrelu",
        (_filtered(2, (9, 8)), _filtered(4, (14, 11)), _filtered(2, (11, 10), radial=True)),
        lambda *size: [torch.randn(*size), torch.randn(size[1])],
    ),
    Case("modulated_conv2d", (_modulated(1), _modulated(2)), _modulated_inputs),
    Case("modulated_conv2d, fused", (_modulated(1), _modulated(2)), _modulated_inputs, HALF, "fused"),
    Case("activated_blur", (_downsampling,), _downsampling_inputs),
    Case("frozen_styles", (_styles,), _style_inputs, (torch.float32,), parts=("forward",)),
    Case("layer_end", (_layer_end,), _layer_end_inputs, parts=("forward",)),
    Case("modulated_conv2d, image", (_with_image,), _with_image_inputs, HALF, "fused", ("forward",)),
)
