"""Alternatives to compare with: StyleGAN2's layers in plain PyTorch, without optimizations.

`use(...)` replaces our ops with one of them, in the same networks, whose weights should then have PyTorch's default
layout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_cli.layers import conv as conv_layer
from stylegan_cli.layers import linear as linear_layer
from stylegan_cli.layers import modulated as modulated_layer
from stylegan_cli.models import levels_discriminator as discriminator_model
from stylegan_cli.ops.bias_act import ACTIVATIONS


def bias_act(x, b=None, act="linear", gain=None, clamp=None):
    """Bias, activation and gain as separate operations."""
    if b is not None:
        x = x + b.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    spec = ACTIVATIONS[act]
    x = spec.function(x, spec.alpha)
    gain = spec.gain if gain is None else gain
    x = x * gain if gain != 1 else x
    return x if clamp is None else x.clamp(-clamp, clamp)


def fir(x: Tensor, f: Tensor, padding: tuple[int, int], up: int = 1, down: int = 1, gain: float = 1.0) -> Tensor:
    """Insert zeros, pad, and filter with one depthwise convolution."""
    n, c, h, w = x.shape
    if up == 2:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).reshape(n, c, 2 * h, 2 * w)
    x = F.pad(x, [*padding, *padding])
    return F.conv2d(x, (f.outer(f) * gain).to(x.dtype).repeat(c, 1, 1, 1), stride=down, groups=c)


def upsample2d(x, f):
    return fir(x, f, (2, 1), up=2, gain=4)


def add_skip(x, b, below, f, clamp):
    image = bias_act(x, b, clamp=clamp).to(torch.promote_types(x.dtype, torch.float32))
    return image if below is None else upsample2d(below, f) + image


def downsample2d(x, f):
    return fir(x, f, (1, 1), down=2)


def conv2d_resample(x, w, f=None, up=1, down=1):
    k = w.shape[-1]
    if up == 2 and k == 1:
        return upsample2d(F.conv2d(x, w), f)
    if up == 2:
        return fir(F.conv_transpose2d(x, w.transpose(0, 1), stride=2), f, (1, 1), gain=4)
    if down == 2 and k == 1:
        return F.conv2d(downsample2d(x, f), w)
    if down == 2:
        return F.conv2d(fir(x, f, (2, 2)), w, stride=2)
    return F.conv2d(x, w, padding=k // 2)


def equalized_conv2d(
    x, w, b, f, up=1, down=1, act="linear", w_gain=1.0, gain=1.0, clamp=None, scaled=None, before=None
):
    x = x if before is None else bias_act(x, *before)
    return bias_act(conv2d_resample(x, (w * w_gain).to(x.dtype), f, up, down), b, act, gain, clamp)


def scaled_linear(x, w, b=None, w_gain=1.0, b_gain=1.0):
    y = x @ (w * w_gain).mT
    return y if b is None else y + b * b_gain


def modulated_scale(
    x,
    w,
    style,
    demodulate=True,
    up=1,
    f=None,
    noise=None,
    noise_strength=None,
    b=None,
    act="linear",
    gain=None,
    clamp=None,
    w_gain=1.0,
):
    """x * s, convolution, * d, + noise, bias_act."""
    w = w * w_gain
    y = conv2d_resample(x * style[:, :, None, None], w, f, up=up)
    if demodulate:
        d = ((w[None] * style[:, None, :, None, None]).square().sum([2, 3, 4]) + 1e-8).rsqrt()
        y = y * d[:, :, None, None]
    if noise is not None:
        y = y + noise * noise_strength
    return bias_act(y, b, act=act, gain=gain, clamp=clamp)


def modulated_grouped(
    x,
    w,
    style,
    demodulate=True,
    up=1,
    f=None,
    noise=None,
    noise_strength=None,
    b=None,
    act="linear",
    gain=None,
    clamp=None,
    w_gain=1.0,
):
    """Per-sample weights, and one convolution with a group per sample."""
    n, i, h, wd = x.shape
    w = w * w_gain
    o, k = w.shape[0], w.shape[-1]
    w = w[None] * style[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        w = w * (w.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    w = w.to(x.dtype)
    x = x.reshape(1, n * i, h, wd)
    if up == 2:
        w = w.transpose(1, 2).reshape(n * i, o, k, k)
        y = F.conv_transpose2d(x, w, stride=2, groups=n)
        y = fir(y.reshape(n, o, *y.shape[2:]), f, (1, 1), gain=4)
    else:
        y = F.conv2d(x, w.reshape(n * o, i, k, k), padding=k // 2, groups=n)
        y = y.reshape(n, o, h, wd)
    if noise is not None:
        y = y + (noise * noise_strength).to(y.dtype)
    return bias_act(y, b, act=act, gain=gain, clamp=clamp)


@contextlib.contextmanager
def use(
    modulated: Callable,  # modulated_scale or modulated_grouped
) -> Iterator[None]:
    """Replace the ops in the networks within the block."""
    replacements = [
        (linear_layer, "bias_act", bias_act),
        (linear_layer, "scaled_linear", scaled_linear),
        (conv_layer, "equalized_conv2d", equalized_conv2d),
        (modulated_layer, "modulated_conv2d", modulated),
        (modulated_layer, "add_skip", add_skip),
        (discriminator_model, "downsample2d", downsample2d),
    ]
    originals = [getattr(module, name) for module, name, _ in replacements]
    try:
        for module, name, function in replacements:
            setattr(module, name, function)
        yield
    finally:
        for (module, name, _), function in zip(replacements, originals, strict=True):
            setattr(module, name, function)
