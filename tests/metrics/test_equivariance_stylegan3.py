"""Equivariance of freshly initialized StyleGAN3 generators, and what mistakes in their schedule or filters do to it.

With all images and at 64², minutes: pytest -m slow tests/metrics/test_equivariance_stylegan3.py
"""

import dataclasses
import functools

import pytest
import torch

from stylegan_cli.metrics.equivariance import peak_signal_to_noise
from stylegan_cli.metrics.motions import MotionErrors
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3 import network
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.models.stylegan3.schedule import layer_specs

SETTINGS = {"T": (1, {}), "R": (2, {"kernel": 1, "radial": True})}  # factor of the channels, fields
SMALL = {"size": (32, 32), "channels": 32, "count": 4}
RECTANGLE = {"size": (24, 48), "channels": 32, "count": 4}
PUBLISHED = {"size": (64, 64), "channels": 64, "count": 12}


def shifted(spec):
    """All samples are shifted by one upsampled pixel."""
    left, right, top, bottom = spec.padding
    return dataclasses.replace(spec, padding=(left + 1, right - 1, top + 1, bottom - 1))


def with_filters(spec, change):
    up = spec.up_filter and change(spec.up_filter)
    return dataclasses.replace(spec, up_filter=up, down_filter=spec.down_filter and change(spec.down_filter))


def truncates(spec):
    """Whether integer division that rounds towards zero gives other paddings."""
    total = sum(spec.padding[:2]) + spec.up
    return total < 0 and total % 2 != 0


MISTAKES = {
    "none": lambda spec: spec,
    "truncating division": lambda spec: shifted(spec) if truncates(spec) else spec,
    "other layers shifted": lambda spec: shifted(spec) if spec.up_filter and not truncates(spec) else spec,
    "separable filters": lambda spec: with_filters(spec, lambda f: dataclasses.replace(f, radial=False)),
    "half the transition": lambda spec: with_filters(
        spec, lambda f: dataclasses.replace(f, half_width=f.half_width / 2)
    ),
    "cutoff at Nyquist": lambda spec: dataclasses.replace(
        spec,
        up_filter=spec.up_filter and dataclasses.replace(spec.up_filter, cutoff=spec.source.rate / 2),
        down_filter=spec.down_filter and dataclasses.replace(spec.down_filter, cutoff=spec.target.rate / 2),
    ),
}


def build(variant, mistake, size, channels):
    """A generator with a mistake, and magnitudes as one batch sets them."""
    factor, fields = SETTINGS[variant]
    width = factor * channels
    config = StyleGAN3Config(*size, z_dim=64, w_dim=64, channel_base=32 * width, channel_max=width, **fields)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "layer_specs", lambda config: tuple(map(MISTAKES[mistake], layer_specs(config))))
        G = build_generator(config).eval().requires_grad_(False)

    def settle(layer, args):
        layer.magnitude_ema.copy_(args[0].square().mean())

    hooks = [m.register_forward_pre_hook(settle) for m in G.modules() if isinstance(m, network.Layer)]
    G(torch.randn(8, 64))
    for hook in hooks:
        hook.remove()
    return G


@functools.cache
def decibels(variant, motion, mistake="none", *, size, channels, count):
    source = MotionErrors(build(variant, mistake, size, channels), motion, None, torch.device("cpu"))
    return peak_signal_to_noise(torch.cat([source(index) for index in torch.arange(count).split(4)])).value


def check_mistakes(scale):
    measured = functools.partial(decibels, **scale)

    def loss(variant, motion, mistake):
        return measured(variant, motion) - measured(variant, motion, mistake)

    for variant in "TR":  # invisible in translations
        assert abs(loss(variant, "int", "truncating division")) < 4
    assert measured("R", "rotate", "truncating division") < 45
    assert loss("T", "int", "other layers shifted") > 12 and loss("R", "int", "other layers shifted") > 0
    assert measured("R", "rotate", "other layers shifted") < 35
    assert abs(loss("R", "int", "separable filters")) < 4 and loss("R", "rotate", "separable filters") > 0.5
    assert loss("T", "int", "half the transition") > 2 and loss("R", "rotate", "half the transition") > 0.5
    assert loss("T", "int", "cutoff at Nyquist") > 12


def check_variants(scale, *, least_t, least_r):
    measured = functools.partial(decibels, **scale)
    for motion in ("int", "frac"):
        assert measured("T", motion) > least_t
    for motion in ("int", "frac", "rotate"):
        assert measured("R", motion) > least_r
    assert measured("T", "rotate") < 35  # T does not turn


@pytest.mark.parametrize("scale", [SMALL, RECTANGLE], ids=["square", "rectangle"])
def test_variants(scale):
    check_variants(scale, least_t=60, least_r=65)


def test_mistakes():
    check_mistakes(SMALL)


@pytest.mark.slow
def test_variants_at_64():
    """Above 60 dB in both translations (T) and above 70 dB in all three metrics (R), without training."""
    check_variants(PUBLISHED, least_t=60, least_r=70)


@pytest.mark.slow
def test_mistakes_at_64():
    check_mistakes(PUBLISHED)
