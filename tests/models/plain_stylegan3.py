"""StyleGAN3 written down plainly in float64 (Karras et al. 2021): what the tests compare the network with. It knows the
schedule's tables only as printed in them, and filters as SciPy designs them."""

import math

import numpy as np
import torch
from scipy import signal, special
from torch.nn import functional as F


def separable_filter(taps, cutoff, half_width, rate):
    return torch.tensor(signal.firwin(taps, cutoff, width=2 * half_width, fs=rate))


def radial_filter(taps, cutoff, half_width, rate):
    m = np.arange(taps) - (taps - 1) / 2
    r = np.hypot(m[:, None], m) / rate
    beta = signal.kaiser_beta(signal.kaiser_atten(taps, 2 * half_width / (rate / 2)))
    window = np.kaiser(taps, beta)
    h = special.j1(2 * np.pi * cutoff * r) / r * np.outer(window, window)
    return torch.tensor(h / h.sum())


def filter_2d(f):
    return f if f.ndim == 2 else f.outer(f)


def filtered_lrelu(x, b, fu, fd, up, down, padding, clamp):
    """Zero insertion, padding or cropping, filter; leaky ReLU; filter, every down-th sample."""
    n, c, h, w = x.shape
    x = x + b[:, None, None]
    u = torch.zeros(n, c, h * up, w * up, dtype=x.dtype)
    u[:, :, ::up, ::up] = x
    u = depthwise(F.pad(u, padding), filter_2d(fu)) * up**2
    u = torch.where(u < 0, 0.2 * u, u) * math.sqrt(2)
    u = u if clamp is None else u.clamp(-clamp, clamp)
    return depthwise(u, filter_2d(fd))[:, :, ::down, ::down]


def depthwise(x, f):  # true convolution
    c = x.shape[1]
    return F.conv2d(x, f.flip(0, 1).expand(c, 1, -1, -1), groups=c)


def mapping(state, z, c=None, layers=2):
    def normalize(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    x = normalize(z)
    if c is not None:
        e = state["mapping.embed.weight"]
        x = torch.cat([x, normalize(c @ e.t() / math.sqrt(e.shape[1]) + state["mapping.embed.bias"])], 1)
    for i in range(layers):
        weight, bias = state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"]
        x = x @ weight.t() * (0.01 / math.sqrt(weight.shape[1])) + 0.01 * bias
        x = torch.where(x < 0, 0.2 * x, x) * math.sqrt(2)
    return x


def affine(state, name, w):
    weight = state[f"{name}.affine.weight"]
    return w @ weight.t() / math.sqrt(weight.shape[1]) + state[f"{name}.affine.bias"]


def input_layer(state, w, size, rate, cutoff, transform=None):
    """[N, C, size, size]: waves whose frequencies and phases w and the transform move, mixed."""
    freqs, phases, weight = (state[f"synthesis.input.{name}"] for name in ("freqs", "phases", "weight"))
    t = affine(state, "synthesis.input", w)
    t = t / t[:, :2].norm(dim=1, keepdim=True)
    images = []
    for c, s, x, y in t.tolist():
        rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        translation = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]], dtype=torch.float64)
        m = rotation @ translation @ (torch.eye(3, dtype=torch.float64) if transform is None else transform)
        p = (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / rate
        moved = freqs @ m[:2, :2]
        phase = phases + freqs @ m[:2, 2]
        a = (1 - (moved.norm(dim=1) - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)
        angle = moved[:, 0, None, None] * p + moved[:, 1, None, None] * p[:, None] + phase[:, None, None]
        waves = a[:, None, None] * torch.sin(2 * math.pi * angle)
        images.append(torch.einsum("oc,chw->ohw", weight, waves) / math.sqrt(len(weight)))
    return torch.stack(images)


def layer(state, name, x, w, fu, fd, up, down, padding, clamp):
    weight, bias, v = (state[f"{name}.{part}"] for part in ("weight", "bias", "magnitude_ema"))
    style = affine(state, name, w)
    weight = weight / weight.square().mean([1, 2, 3], keepdim=True).sqrt()
    style = style / style.square().mean().sqrt()
    per_image = weight * style[:, None, :, None, None]  # [N, O, I, k, k]
    per_image = per_image / (per_image.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt() / v.sqrt()
    padded = F.pad(x, [weight.shape[-1] - 1] * 4)
    y = torch.cat([F.conv2d(one[None], kernel) for one, kernel in zip(padded, per_image)])
    return filtered_lrelu(y, bias, fu, fd, up, down, padding, clamp)


def to_image(state, name, x, w, clamp):
    weight, bias, v = (state[f"{name}.{part}"] for part in ("weight", "bias", "magnitude_ema"))
    style = affine(state, name, w) / math.sqrt(weight.shape[1]) / v.sqrt()
    y = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x * style[:, :, None, None]) + bias[:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


# Square networks with the published settings: (rate, cutoff, half width) of every layer's output, and its size.


def sampling(resolution):
    rows = []
    for i in range(15):
        e = min(i / 12, 1)
        cutoff = 2 * (resolution / 4) ** e
        stopband = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** e
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        rows.append((rate, cutoff, max(stopband, rate / 2) - cutoff, rate + 20 if i < 13 else resolution))
    return rows


def resampling_filter(design, taps, factor, cutoff, half_width, rate):
    return design(taps * factor, cutoff, half_width, rate) if factor > 1 else torch.ones(1, dtype=torch.float64)


def synthesize(state, ws, resolution, radial, transform=None, clamp=256.0, rows=None, upsampling=2):
    """[N, C, R, R] from ws [N, layers, w_dim] with the weights of a state_dict in float64."""
    rows = rows or sampling(resolution)
    names = sorted({k.split(".")[1] for k in state if ".L" in k}, key=lambda name: int(name[1:].split("_")[0]))
    rate, cutoff, half_width, size = rows[0]
    x = input_layer(state, ws[:, 0], size, rate, cutoff, transform)
    for i, name in enumerate(names[:-1]):
        new_rate, new_cutoff, new_half_width, new_size = rows[i]
        high = upsampling * max(rate, new_rate)
        up, down = high // rate, high // new_rate
        fu = resampling_filter(separable_filter, 6, up, cutoff, half_width, high)
        design = radial_filter if radial and i < 12 else separable_filter
        fd = resampling_filter(design, 6, down, new_cutoff, new_half_width, high)
        k = state[f"synthesis.{name}.weight"].shape[-1]
        total = (new_size - 1) * down + 1 - (size + k - 1) * up + len(fu) - 1 + len(fd) - 1
        low = math.floor((total + up) / 2)
        padding = (low, total - low) * 2
        x = layer(state, f"synthesis.{name}", x, ws[:, i + 1], fu, fd, up, down, padding, clamp)
        rate, cutoff, half_width, size = rows[i]
        assert x.shape[-1] == size
    return 0.25 * to_image(state, f"synthesis.{names[-1]}", x, ws[:, -1], clamp)
