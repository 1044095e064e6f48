"""Low-pass filters against SciPy, and their separable pairs, in the layers of StyleGAN3."""

import math

import numpy as np
import pytest
import torch
from scipy import signal, special

from stylegan_cli.ops import lowpass_filter, separable_pairs
from stylegan_cli.ops.filters import kaiser_beta

LAYERS = 14


def filter_of_layer(size, i):
    """Cutoff, half width and rate of the filter before downsampling in layer i: the paper's schedule."""
    e = min(i / (LAYERS - 2), 1)
    cutoff = 2 * (size / 4) ** e
    stopband = 2**2.1 * (size / 2 * 2**0.3 / 2**2.1) ** e
    rate = 2 ** math.ceil(math.log2(min(2 * stopband, size)))
    before = 2 ** math.ceil(math.log2(min(2 * 2**2.1 * (size / 2 * 2**0.3 / 2**2.1) ** (max(i - 1, 0) / 12), size)))
    return cutoff, max(stopband, rate / 2) - cutoff, 2 * max(rate, before)


def radial_by_scipy(taps, cutoff, half_width, rate):
    m = np.arange(taps) - (taps - 1) / 2
    r = np.sqrt(m[:, None] ** 2 + m**2) / rate
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, half_width * 4 / rate)))
    f = special.j1(2 * np.pi * cutoff * r) / r * np.outer(window, window)
    return f / f.sum()


@pytest.mark.parametrize("size", [64, 256, 1024])
@pytest.mark.parametrize("taps", [12, 24])
def test_filters_agree_with_scipy(size, taps):
    for i in range(LAYERS):
        cutoff, half_width, rate = filter_of_layer(size, i)
        design = (
            signal.firwin(taps, cutoff, width=2 * half_width, fs=rate),
            radial_by_scipy(taps, cutoff, half_width, rate),
        )
        for radial, exact in zip((False, True), design):
            f = lowpass_filter(taps, cutoff, half_width, rate, radial, dtype=torch.float64)
            assert np.abs(f.numpy() - exact).max() < 1e-14, (i, radial)
            assert torch.equal(lowpass_filter(taps, cutoff, half_width, rate, radial), f.float())


def test_attenuations():
    """Of the stopband in dB, in layers 0, 8, 11 and 12 at 1024x1024: all branches of Kaiser's formula for beta."""
    for i, attenuation, beta in ((0, 67.2, 6.44), (8, 37.2, 3.05), (11, 37.2, 3.05), (12, 26.2, 1.54)):
        _, half_width, rate = filter_of_layer(1024, i)
        assert signal.kaiser_atten(12, 4 * half_width / rate) == pytest.approx(attenuation, abs=0.05)
        assert kaiser_beta(12, half_width, rate) == pytest.approx(beta, abs=0.005)
    assert kaiser_beta(12, 0.01, 1.0) == 0


def test_a_cutoff_is_where_the_amplitude_is_one_half():
    """In every direction of a radial filter, but not of a separable one."""
    for radial in (False, True):
        f = lowpass_filter(24, 4.0, 2.0, 32.0, radial, dtype=torch.float64)
        f = f if radial else f.outer(f)
        m = torch.arange(24.0, dtype=torch.float64) - 11.5
        for angle in (0, math.pi / 8, math.pi / 4):
            phase = 2 * math.pi * 4 / 32 * (m[:, None] * math.sin(angle) + m * math.cos(angle))
            amplitude = (f * phase.cos()).sum().item()
            if radial or angle == 0:
                assert amplitude == pytest.approx(0.5, abs=0.05)
            else:
                assert amplitude > 0.6


def test_one_tap_is_no_filter():
    assert lowpass_filter(1, 4.0, 2.0, 32.0).tolist() == [1]


def test_bad_designs():
    with pytest.raises(ValueError, match="between 0 and half the rate of 32, not 17"):
        lowpass_filter(12, 17, 2, 32)
    with pytest.raises(ValueError, match="even number of taps, not 11"):
        lowpass_filter(11, 4, 2, 32, radial=True)


@pytest.mark.parametrize(("size", "three"), [(256, {9, 11}), (1024, {8, 11})])
def test_radial_filters_are_two_or_three_pairs(size, three):
    for i in range(LAYERS - 2):  # the last layers have separable filters
        f = lowpass_filter(12, *filter_of_layer(size, i), radial=True, dtype=torch.float64)
        for error, allowed in ((5e-4, {3} if i in three else {2}), (1e-5, {2, 3, 4})):
            y, x = separable_pairs(f, error)
            assert len(y) in allowed and y.shape == x.shape == (len(y), 12)
            omitted = torch.linalg.norm(torch.einsum("ri,rj->ij", y, x) - f)
            assert omitted <= error * torch.linalg.norm(f)
            if len(y) > 1:  # no pair is superfluous
                assert torch.linalg.norm(torch.einsum("ri,rj->ij", y[:-1], x[:-1]) - f) > error * torch.linalg.norm(f)


def test_pairs_of_any_filter(random):
    f = random(5, 8)
    y, x = separable_pairs(f, 1e-14)
    assert y.shape == (5, 5) and x.shape == (5, 8)
    assert torch.allclose(y.t() @ x, f, rtol=1e-12, atol=1e-12)
    y, x = separable_pairs(f[:1].t().float() @ f[1:2].float())
    assert y.dtype == torch.float32 and len(y) == 1
