"""Average power spectra, compared with NumPy's FFT."""

import math

import numpy as np
import pytest
import torch

from stylegan_cli.metrics.spectrum import PowerSums
from stylegan_cli.metrics.spectrum_plots import heat_maps, slices


def spectrum_of(images, name="a"):
    sums = PowerSums(*images.shape[2:])
    for part in images.split(3):
        sums.add(part)
    return sums.spectrum(name, *sums.moments)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def by_definition(images, mean, std):
    """White noise of the deviation std has a power of 1: the window's squares have a sum of 1."""
    x = (images.numpy().astype(float) - mean) / std
    h, w = x.shape[2:]
    window = np.outer(np.kaiser(h, 8), np.kaiser(w, 8))
    x = x * window / np.sqrt((window**2).sum())
    return (np.abs(np.fft.fft2(x, (4 * h, 4 * w))) ** 2).mean((0, 1))


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (4, 1, 8, 12), (2, 3, 7, 5)])
def test_equals_the_definition(shape):
    images = noise(*shape)
    spectrum = spectrum_of(images)
    x = images.numpy().astype(float)
    assert (spectrum.num, spectrum.mean, spectrum.std) == (shape[0], pytest.approx(x.mean()), pytest.approx(x.std()))
    assert np.allclose(spectrum.power, by_definition(images, x.mean(), x.std()), rtol=1e-10, atol=1e-12)


def test_other_mean_and_deviation():
    """Those of another dataset; also far from the mean of these images."""
    images = noise(3, 3, 8, 8) // 4
    sums = PowerSums(8, 8)
    sums.add(images)
    assert np.allclose(sums.spectrum("a", 200.0, 30.0).power, by_definition(images, 200.0, 30.0), rtol=1e-9)


def test_white_noise_is_at_zero_decibels():
    decibels = spectrum_of(noise(400, 3, 16, 16)).decibels
    assert np.abs(decibels).max() < 1


def test_slices_find_a_wave():
    """Of 6 cycles to the right, or of 3 in both directions, in images of 24 x 48."""
    y, x = np.mgrid[:24, :48]
    for cycles, angle in (((6, 0), "horizontal"), ((6, 3), "diagonal")):
        wave = np.cos(2 * np.pi * (cycles[0] * x / 48 + cycles[1] * y / 24))
        spectrum = spectrum_of(torch.from_numpy((wave * 100 + 128).round().astype(np.uint8))[None, None])
        frequencies, decibels = getattr(spectrum, angle)
        away = frequencies > 3
        assert frequencies[away][decibels[away].argmax()] == pytest.approx(math.hypot(6, 2 * cycles[1]), abs=0.3)
        assert frequencies[-1] == pytest.approx(24 * (1 if angle == "horizontal" else math.sqrt(2)))


def test_plots_keep_their_size_and_grow_with_the_inputs():
    spectra = [spectrum_of(noise(2, 3, 8, 8, seed=i), f"a rather long name of an input {i}") for i in range(6)]
    one, many = heat_maps(spectra[:1]), heat_maps(spectra)
    assert one.dtype == torch.uint8 and many.shape[2] > 3 * one.shape[2] / 2 and many.shape[1] > 1.9 * one.shape[1]
    few, all_lines = slices(spectra[:1]), slices(spectra)
    assert few.shape[2] == all_lines.shape[2] and all_lines.shape[1] > few.shape[1], "the legend needs more rows"
    assert not torch.equal(few, slices(spectra[1:2]))
