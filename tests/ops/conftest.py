"""Slow, plain implementations of the ops' equations, independent of the package."""

import math

import numpy as np
import pytest
import torch

from stylegan_cli import ops


def filter_2d(f):
    f = np.asarray(f, np.float64)
    return np.multiply.outer(f, f) if f.ndim == 1 else f


def insert_zeros(x, up):  # [N, C, H, W] -> [N, C, H up, W up]
    n, c, h, w = x.shape
    u = np.zeros((n, c, h * up, w * up))
    u[:, :, ::up, ::up] = x
    return u


def pad_or_crop(u, left, right, top, bottom):
    u = np.pad(u, [(0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
    h, w = u.shape[2:]
    return u[:, :, max(-top, 0) : h - max(-bottom, 0), max(-left, 0) : w - max(-right, 0)]


def upfirdn(x, f, up=1, down=1, padding=(0, 0, 0, 0), flip=False, gain=1.0):
    """Zero insertion, padding, one filter tap after another, decimation: numpy float64."""
    f = filter_2d(f)
    u = pad_or_crop(insert_zeros(np.asarray(x, np.float64), up), *padding)
    kh, kw = f.shape
    h, w = u.shape[2] - kh + 1, u.shape[3] - kw + 1
    y = np.zeros((*u.shape[:2], h, w))
    for a in range(kh):
        for b in range(kw):  # taps of a correlation, reversed for a convolution
            y += (f[a, b] if flip else f[kh - 1 - a, kw - 1 - b]) * u[:, :, a : a + h, b : b + w]
    return gain * y[:, :, ::down, ::down]


def convolve_full(x, w):  # [N, I, H, W], [O, I, a, b] -> [N, O, H + a - 1, W + b - 1], true convolution
    n, _, h, width = x.shape
    o, _, kh, kw = w.shape
    y = np.zeros((n, o, h + kh - 1, width + kw - 1))
    for a in range(kh):
        for b in range(kw):
            y[:, :, a : a + h, b : b + width] += np.einsum("nihw,oi->nohw", x, w[:, :, a, b])
    return y


def conv_resample(x, w, f=None, up=1, down=1):
    """'same' convolution with resampling. Pixels are squares, so the image content does not move.

    up: insert zeros, then true convolution with w and with 4 f. down: true convolution with f, correlation with w,
    every other sample. Neither: correlation with w.
    """
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    k, (h, width) = w.shape[-1], x.shape[2:]
    if up == 1 and down == 1:
        start = k // 2
        return convolve_full(x, w[:, :, ::-1, ::-1])[:, :, start : start + h, start : start + width]
    f = filter_2d(f)
    shape = (w.shape[0], w.shape[1])
    w = w if up == 2 else w[:, :, ::-1, ::-1]
    combined = convolve_full(w.reshape(-1, 1, k, k), f[None, None])
    kernel = combined.reshape(*shape, *combined.shape[2:])  # convolution and filter in one
    start = kernel.shape[-1] // 2 - 1  # its size is even: half a pixel toward the start
    if up == 2:
        return 4 * convolve_full(insert_zeros(x, 2), kernel)[:, :, start : start + 2 * h, start : start + 2 * width]
    return convolve_full(x, kernel)[:, :, start + 1 : start + 1 + h : 2, start + 1 : start + 1 + width : 2]


def modulated_conv(x, w, style, f=None, up=1, demodulate=True):
    """Per-sample weights, one image after another."""
    x, w, style = (np.asarray(t, np.float64) for t in (x, w, style))
    rows = []
    for image, s in zip(x, style):
        weight = w * s[None, :, None, None]
        if demodulate:
            weight = weight / np.sqrt(np.square(weight).sum((1, 2, 3), keepdims=True) + 1e-8)
        rows.append(conv_resample(image[None], weight, f, up))
    return np.concatenate(rows)


ACTS = {  # function, gain
    "linear": (lambda x, a: x, 1.0),
    "relu": (lambda x, a: np.maximum(x, 0), math.sqrt(2)),
    "lrelu": (lambda x, a: np.where(x > 0, x, a * x), math.sqrt(2)),
    "tanh": (lambda x, a: np.tanh(x), 1.0),
    "sigmoid": (lambda x, a: 1 / (1 + np.exp(-x)), 1.0),
    "elu": (lambda x, a: np.where(x > 0, x, np.expm1(x)), 1.0),
    "selu": (
        lambda x, a: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
        1.0,
    ),
    "softplus": (lambda x, a: np.log1p(np.exp(x)), 1.0),
    "swish": (lambda x, a: x / (1 + np.exp(-x)), math.sqrt(2)),
}


def bias_act(x, b=None, act="linear", gain=None, alpha=0.2, clamp=None):
    function, default = ACTS[act]
    x = np.asarray(x, np.float64)
    if b is not None:
        x = x + np.asarray(b, np.float64).reshape(1, -1, *[1] * (x.ndim - 2))
    y = function(x, alpha) * (default if gain is None else gain)
    return y if clamp is None else np.clip(y, -clamp, clamp)


def filtered_lrelu(x, b, fu, fd, up, down, padding, gain, slope, clamp, flip=False):
    """Zero insertion, padding, the whole filter, activation, clamp, the whole filter, decimation."""
    x, b = (np.asarray(t, np.float64) for t in (x, b))
    h = upfirdn(x + b[:, None, None], fu, up, 1, padding, flip, gain * up**2)
    q = np.where(h < 0, slope * h, h)
    q = q if clamp is None else np.clip(q, -clamp, clamp)
    return upfirdn(q, fd, flip=flip)[:, :, ::down, ::down]


@pytest.fixture(scope="session")
def dense():
    """Namespace of the functions above."""
    import types

    return types.SimpleNamespace(
        upfirdn=upfirdn,
        conv_resample=conv_resample,
        modulated_conv=modulated_conv,
        bias_act=bias_act,
        filtered_lrelu=filtered_lrelu,
        acts=ACTS,
    )


@pytest.fixture
def random():
    """Normal random float64 tensors, the same in each test: random(2, 3) -> [2, 3]."""
    generator = torch.Generator().manual_seed(1)

    def make(*shape, requires_grad=False):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)

    return make


@pytest.fixture(params=["auto", "reference"])
def implementation(request):
    """Run the test once with each implementation."""
    with ops.use(request.param):
        yield request.param


@pytest.fixture(scope="session")
def rms_error():
    """Root mean square difference, computed in float64."""
    return lambda a, b: (a.double() - b.double()).square().mean().sqrt().item()
