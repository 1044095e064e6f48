"""NVIDIA's pickles: networks with any settings are read, and unsupported files are refused with the reason."""

import pickle
import sys
import types

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import open_model

KINDS = {
    "plain": {},
    "conditional": {"c_dim": 3},
    "orig": {"architecture": "orig", "d_architecture": "orig"},
    "resnet": {"architecture": "resnet", "d_architecture": "skip"},
    "narrow": {"channel_base": 32, "channel_max": 4, "size": 32},
    "wide": {"channel_base": 96, "channel_max": 6},  # no level is narrower than the widest
    "half": {"half_levels": 2, "conv_clamp": 256.0},
    "filter": {"fir": (1.0, 2.0, 1.0)},
    "gray": {"channels": 1},
}


@pytest.fixture
def opened(tmp_path):
    def make(data, name="x.pkl"):
        (tmp_path / name).write_bytes(data)
        return open_model(tmp_path / name)

    return make


def assert_equal(actual, expected):
    assert actual.config == expected.config
    assert actual.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(t, expected.state_dict()[n]) for n, t in actual.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_networks_are_read(networks, nvidia_bytes, opened, kind, protocol):
    if protocol != 4 and kind not in ("plain", "conditional"):
        pytest.skip("one protocol is enough")
    G, D = networks(**KINDS[kind])
    model = opened(nvidia_bytes(G, D, protocol))
    assert_equal(model.G, G)
    assert_equal(model.D, D)
    assert all(text in model.info.origin for text in ("faces.zip", "x.pkl", "p = 0.25"))


def test_filters_of_layers_that_do_not_resample_do_not_matter(networks, nvidia_bytes, opened):
    """NVIDIA's classes build them with their default, whatever the others have; a file may hold any or none."""
    G, D = networks(fir=(1.0, 2.0, 1.0))

    def change(content):
        for network in (content["G_ema"].modules["synthesis"], content["D"]):
            layers = [layer for block in network.modules.values() for layer in block.modules.values()]
            idle = [a for a in layers if a.attributes.get("up") == a.attributes.get("down") == 1]
            assert len(idle) >= 3 and all(a.buffers["resample_filter"].shape == (4, 4) for a in idle)
            idle[0].buffers.pop("resample_filter")
            idle[1].buffers["resample_filter"] = torch.eye(6)
        if "resample_filter" in (b4 := content["G_ema"].modules["synthesis"].modules["b4"]).buffers:
            b4.buffers["resample_filter"] = torch.eye(4)  # there is no image below it

    model = opened(nvidia_bytes(G, D, change=change))
    assert_equal(model.G, G)
    assert_equal(model.D, D)


@pytest.mark.parametrize(("network", "layer"), [("G_ema", "conv0"), ("D", "conv1"), ("D", "skip")])
def test_different_filters_of_layers_that_resample_are_refused(networks, nvidia_bytes, opened, network, layer):
    def change(content):
        levels = content[network].modules.get("synthesis", content[network])
        levels.modules["b8"].modules[layer].buffers["resample_filter"] = torch.ones(2, 2) / 4

    with pytest.raises(SganError, match=rf"b8\.{layer}.* different resampling filters"):
        opened(nvidia_bytes(*networks(), change=change))


def test_frozen_weights_are_buffers(networks, nvidia_bytes, opened):
    G, D = networks()
    assert_equal(opened(nvidia_bytes(G, D, frozen=("b16",))).D, D)


def test_without_a_discriminator(networks, nvidia_bytes, opened):
    assert opened(nvidia_bytes(networks()[0])).D is None


def test_half_precision_and_memory_formats(networks, nvidia_bytes, opened):
    """Weights stored in float16, in channels_last, and as views of a larger storage."""
    G, _ = networks()
    weight = G.synthesis.b8.conv1.weight
    weight.copy_(weight.half())
    large = torch.cat([torch.zeros(3), G.synthesis.b8.conv0.bias])

    def change(content):
        block = content["G_ema"].modules["synthesis"].modules["b8"]
        block.modules["conv1"].parameters["weight"] = weight.half().to(memory_format=torch.channels_last)
        block.modules["conv0"].parameters["bias"] = large[3:]

    assert_equal(opened(nvidia_bytes(G, change=change)).G, G)


@pytest.mark.parametrize(
    ("message", "change"),
    {
        "activation sigmoid": lambda c: (
            c["G_ema"].modules["synthesis"].modules["b8"].modules["conv0"].attributes.update(activation="sigmoid")
        ),
        "different clamp": lambda c: (
            c["G_ema"].modules["synthesis"].modules["b8"].modules["conv0"].attributes.update(conv_clamp=1.0)
        ),
        "different resampling": lambda c: (
            c["G_ema"].modules["synthesis"].modules["b8"].buffers.update(resample_filter=torch.eye(4))
        ),
        "different architecture": lambda c: (
            c["G_ema"].modules["synthesis"].modules["b8"].attributes.update(architecture="orig")
        ),
        "two places": lambda c: c["G_ema"].modules["mapping"].modules.update(again=c["G_ema"].modules["synthesis"]),
        "activation relu": lambda c: c["G_ema"].modules["mapping"].modules["fc0"].attributes.update(activation="relu"),
        "z_dim is not a valid number": lambda c: c["G_ema"].modules["mapping"].attributes.update(z_dim="many"),
        "match its own configuration: G.mapping.w_avg": lambda c: c["G_ema"].modules["mapping"].buffers.pop("w_avg"),
        "G.synthesis.b4.const": lambda c: (
            c["G_ema"].modules["synthesis"].modules["b4"].parameters.update(const=torch.zeros(2, 4, 4))
        ),
        "not finite": lambda c: c["G_ema"].modules["mapping"].buffers["w_avg"].fill_(float("nan")),
        "discriminator without its generator": lambda c: [c.pop(name) for name in ("G", "G_ema")],
    }.items(),
)
def test_unsupported_files_are_refused(networks, nvidia_bytes, opened, message, change):
    with pytest.raises(SganError, match=message) as e:
        opened(nvidia_bytes(*networks(), change=change))
    assert "x.pkl" in str(e.value) and "\n" not in str(e.value)


def test_unknown_names_are_reported(networks, nvidia_bytes, opened, monkeypatch):
    module = types.ModuleType("evil")

    class Thing:
        pass

    Thing.__module__, Thing.__qualname__ = "evil", "Thing"
    module.Thing = Thing
    monkeypatch.setitem(sys.modules, "evil", module)
    with pytest.raises(SganError, match="evil.Thing"):
        opened(nvidia_bytes(networks()[0], change=lambda c: c.update(extra=Thing())))


def test_other_files_are_refused(opened):
    for message, data in {
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "empty": b"",
        "not a checkpoint": b"just some text, nothing else",
        "a pickle without networks": pickle.dumps({"a": 1}),
    }.items():
        with pytest.raises(SganError, match=message):
            opened(data)
