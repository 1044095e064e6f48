"""The layers of StyleGAN2 in plain PyTorch, by their definitions, as in the programs whose files are read here.

Our own layers are not used. Upsampling and downsampling use filters and zeros, convolutions are correlations.
"""

import math

import torch
from torch.nn import functional as F


def unit(x):
    """Normalize to unit second moment over the features."""
    return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


def lrelu(x):
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def dense(x, w, b, lr=1.0):  # [N, I], [O, I], [O]
    return x @ (w * lr / math.sqrt(w.shape[1])).t() + b * lr


def apply_filter(x, before, after, taps=(1, 3, 3, 1)):  # [N, C, H, W]
    """Pad with zeros, then filter in both dimensions."""
    f = torch.tensor(taps, dtype=x.dtype)
    f = torch.outer(f, f) / f.sum() ** 2
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x, f.flip(0, 1).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def insert_zeros(x):  # [N, C, H, W] -> [N, C, 2 H, 2 W]
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[:, :, ::2, ::2] = x
    return y


def upsample(x):
    return apply_filter(insert_zeros(x), 2, 1) * 4


def correlate(x, w, up=False, down=False):  # [N, I, H, W], [O, I, k, k] without a gain
    """A 'same' correlation, after upsampling or before downsampling."""
    k = w.shape[-1]
    if up:  # the padding includes that of the kernel
        return F.conv2d(apply_filter(insert_zeros(x), 2 + k // 2, 1 + k // 2) * 4, w)
    if down:
        return F.conv2d(apply_filter(x, 1 + k // 2, 1 + k // 2), w, stride=2)
    return F.conv2d(x, w, padding=k // 2)


def convolution(x, w, b=None, down=False):
    y = correlate(x, w / math.sqrt(w[0].numel()), down=down)
    return y if b is None else lrelu(y + b[:, None, None])


def modulated(x, w, style, up=False, demodulate=True):  # [N, I, H, W], [O, I, k, k], [N, I]
    w = w / math.sqrt(w[0].numel())
    images = []
    for image, s in zip(x, style, strict=True):
        image_w = w * s[None, :, None, None]
        if demodulate:
            image_w = image_w / (image_w.pow(2).sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        images.append(correlate(image[None], image_w, up=up))
    return torch.cat(images)


def append_deviation(x, group, maps=1):  # [N, C, H, W] -> [N, C + maps, H, W]
    n, c, h, w = x.shape
    group = min(group or n, n)
    spread = x.reshape(group, n // group, maps, c // maps, h, w)
    spread = (spread.var(0, unbiased=False) + 1e-8).sqrt().mean([2, 3, 4])
    return torch.cat([x, spread.reshape(-1, maps, 1, 1).repeat(group, 1, h, w)], 1)
