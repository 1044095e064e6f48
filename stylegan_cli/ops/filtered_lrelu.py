import math, torch
from .upfirdn2d import upfirdn2d_reference as R


def filtered_lrelu(x, fu, fd, b, up=1, down=1, padding=(0, 0, 0, 0), gain=math.sqrt(2), slope=0.2, clamp=None):
    one = torch.ones(1)
    x = x + b[:, None, None]
    x = R(x, one if fu is None else fu, up, 1, padding, False, float(up * up))
    x = torch.nn.functional.leaky_relu(x, slope) * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return R(x, one if fd is None else fd, 1, down, (0, 0, 0, 0), False, 1.0)


def lowpass_filter(taps, cutoff, width, rate, radial=False):
    from scipy import signal, special
    import numpy as np

    if not radial:
        return torch.tensor(signal.firwin(taps, cutoff, width=width, fs=rate), device="cpu").float()
    m = np.arange(taps) - (taps - 1) / 2
    r = np.hypot(*np.meshgrid(m, m)) / rate
    f = special.j1(2 * np.pi * cutoff * r) / r
    beta = signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2)))
    w = np.kaiser(taps, beta)
    f = f * np.outer(w, w)
    return torch.tensor(f / f.sum(), device="cpu").float()
