"""Low-pass filters with a Kaiser window, and their decomposition into separable filters.

With n taps at the positions m = -(n - 1) / 2 ... (n - 1) / 2, a cutoff f_c, a transition band from f_c - f_h to
f_c + f_h, and a sampling rate s:

    separable   h[m] = sinc(2 f_c m / s) w[m]
    radial      h[m, k] = J1(2 pi f_c r) / r w[m] w[k],   r = sqrt(m^2 + k^2) / s
    window      w[m] = I0(beta sqrt(1 - (2 m / (n - 1))^2)) / I0(beta)

Karras et al., "Alias-Free Generative Adversarial Networks", appendix C; Kaiser, "Nonrecursive digital filter design
using the I0-sinh window function" (1974), for beta.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lowpass_filter(
    taps: int,  # along each axis; 1: no filter
    cutoff: float,  # where the amplitude is one half, in the unit of the rate
    half_width: float,  # of the transition band
    rate: float,  # sampling rate
    radial: bool = False,  # the same cutoff in all directions: a filter that is not separable
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # [taps], to be applied along both axes, or radial: [taps, taps]
    """Design a low-pass filter that preserves the mean, in double precision, on the CPU whatever the default device is.

    Raises ValueError if the cutoff is not between zero and half the rate, or a radial filter has an odd number of taps.
    """
    if taps == 1:
        return torch.ones([1, 1] if radial else [1], dtype=dtype, device="cpu")
    if not 0 < cutoff <= rate / 2:
        raise ValueError(f"cutoff must be between 0 and half the rate of {rate:g}, not {cutoff:g}")
    if radial and taps % 2:
        raise ValueError(f"a radial filter needs an even number of taps, not {taps}")
    m = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    beta = torch.tensor(kaiser_beta(taps, half_width, rate), dtype=torch.float64, device="cpu")
    window = torch.special.i0(beta * (1 - (2 * m / (taps - 1)).square()).sqrt()) / torch.special.i0(beta)
    if radial:
        r = torch.hypot(m[:, None], m) / rate
        f = _bessel_j1(2 * math.pi * cutoff * r) / r * window.outer(window)
    else:
        f = torch.special.sinc(2 * cutoff * m / rate) * window
    return (f / f.sum()).to(dtype)


def _bessel_j1(
    z: Tensor,  # [...] float64, at most 200
) -> Tensor:  # [...]
    """J1(z) = 1 / pi int_0^pi cos(t - z sin t) dt. The midpoint rule is exact to rounding for a periodic function;
    torch.special.bessel_j1 is wrong by up to 5e-7."""
    t = (torch.arange(256, dtype=z.dtype, device=z.device) + 0.5) * (math.pi / 256)
    return (t - z[..., None] * t.sin()).cos().mean(-1)


def kaiser_beta(taps: int, half_width: float, rate: float) -> float:
    """The shape of the window whose filter has this transition band, by the attenuation in the stopband that the number
    of taps then allows."""
    attenuation = 2.285 * (taps - 1) * math.pi * 4 * half_width / rate + 7.95  # dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation > 21 else 0.0


def separable_pairs(
    f: Tensor,  # [KH, KW]
    error: float = 5e-4,  # largest Frobenius norm of the difference, relative to that of f
) -> tuple[Tensor, Tensor]:  # [R, KH], [R, KW]
    """The fewest separable filters with this sum: f is about sum_r y[r] x[r]^T, by its singular values.

    A radial low-pass filter of 12 x 12 taps needs two or three pairs in half precision, which are cheaper than its 144
    taps. The result has the type and device of f.
    """
    u, s, v = torch.linalg.svd(f.double().cpu())
    s = s / torch.linalg.vector_norm(s)
    omitted = s.square().flip(0).cumsum(0).flip(0).sqrt()  # by the first r pairs
    pairs = max(int((omitted > error).sum()), 1)
    scale = (s[:pairs] * torch.linalg.vector_norm(f.double().cpu())).sqrt()
    return (u[:, :pairs] * scale).t().to(f), (v[:pairs] * scale[:, None]).to(f)
