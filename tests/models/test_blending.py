"""Blending weights: which layers come from which model."""

import math

import pytest
import torch

from stylegan_cli.models.blending import blend, layer_weights, level_units, style_units
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

TINY = {"channel_base": 64, "channel_max": 8, "z_dim": 8}


def pair(config):
    torch.manual_seed(0)
    a, b = build_generator(config), build_generator(config)
    for network in (a, b):
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    return a.requires_grad_(False), b.requires_grad_(False)


def origin(name, a, b, result):
    """'a', 'b' or 'both'."""
    own = [torch.equal(result.state_dict()[name], x.state_dict()[name]) for x in (a, b)]
    return "a" if own == [True, False] else "b" if own == [False, True] else "both"


def test_units_of_layers():
    """A toRGB layer belongs to its level, although its latent is that of the next one."""
    layers = build_generator(StyleGAN2Config(24, 48, w_dim=8, **TINY)).layers
    assert style_units(layers) == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7][: len(layers)]
    assert level_units(layers, (24, 48)) == [4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32][: len(layers)]
    layers = build_generator(StyleGAN3Config(32, 32, w_dim=8, **TINY)).layers
    assert style_units(layers) == [row.w_index for row in layers]
    assert set(level_units(layers, (32, 32))) == {16, 32}


def test_weights_of_layers():
    units = [0, 0, 1, 2, 2, 3]
    assert layer_weights(units, {0, 1}) == [1, 1, 1, 0, 0, 0]
    assert layer_weights(units, {2}) == [0, 0, 0, 1, 1, 0]
    assert layer_weights(units, {0, 1, 2, 3}) == [1] * 6 and layer_weights(units, set()) == [0] * 6
    soft = layer_weights(units, {0, 1}, 1.0)
    expected = [1 / (1 + math.exp(-x)) for x in (1.5, 1.5, 0.5, -0.5, -0.5, -1.5)]
    assert soft == pytest.approx(expected)
    assert layer_weights(units, {0, 1}, 1e-9) == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_every_weight_comes_from_one_of_the_two(architecture):
    a, b = pair(StyleGAN2Config(32, 32, w_dim=8, architecture=architecture, **TINY))
    units = level_units(a.layers, (32, 32))
    result = blend(a, b, layer_weights(units, {4, 8}))
    for name in a.state_dict():
        coarse = name.startswith(("synthesis.b4.", "synthesis.b8."))
        assert origin(name, a, b, result) == ("b" if coarse else "a"), name
    ws = a.mapping(torch.randn(2, 8))
    assert not torch.equal(result.synthesis(ws), a.synthesis(ws))
    assert not torch.equal(result.synthesis(ws), b.synthesis(ws))


def test_alias_free_layers():
    a, b = pair(StyleGAN3Config(32, 32, w_dim=8, **TINY))
    units = level_units(a.layers, (32, 32))
    result = blend(a, b, layer_weights(units, {min(units)}))
    origins = {origin(name, a, b, result) for name in a.state_dict()}
    assert {"a", "b"} <= origins
    assert origin(next(n for n in a.state_dict() if n.startswith(a.layers[0].name)), a, b, result) == "b"
    assert origin(next(n for n in a.state_dict() if n.startswith(a.layers[-1].name)), a, b, result) == "a"


@pytest.mark.parametrize("config", [StyleGAN2Config(16, 16, w_dim=8, **TINY), ProGANConfig(16, 16, **TINY)])
def test_interpolated_weights(config):
    a, b = pair(config)
    result = blend(a, b, [0.25] * len(a.layers), 0.5)
    for name, tensor in result.state_dict().items():
        weight = 0.25 if name.startswith("synthesis.") else 0.5
        expected = torch.lerp(a.state_dict()[name], b.state_dict()[name], weight)
        assert torch.equal(tensor, expected), name
    whole = blend(a, b, [1.0] * len(a.layers), 1.0)
    assert all(torch.equal(x, b.state_dict()[name]) for name, x in whole.state_dict().items())
