"""Pickles for NVIDIA's repositories: Python's pickle loads them if the classes exist, and our reader reads them back.

The classes in this file replace NVIDIA's: they take the same arguments, have the same weight names, and contain our
networks.
"""

import pickle
import pickletools
import sys
import types

import pytest
import torch

from stylegan_cli.config import from_json
from stylegan_cli.errors import SganError
from stylegan_cli.interop import nvidia_writer
from stylegan_cli.interop.nvidia_writer import REPOSITORIES, write_nvidia
from stylegan_cli.interop.opening import open_model
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SIZES = {"channel_base": 64, "channel_max": 12, "mapping_layers": 2}
KINDS = {  # settings of G, of D, of both networks
    "plain": ({}, {}, {}),
    "classes": ({}, {"mbstd_channels": 2, "mbstd_group": None}, {"c_dim": 3, "mapping_lr": 0.1}),
    "resnet": ({"architecture": "resnet", "w_avg_beta": 0.998}, {"architecture": "skip"}, {"conv_clamp": None}),
    "orig": ({"architecture": "orig"}, {"architecture": "orig", "mbstd_channels": 0}, {"fir": (1.0, 2.0, 1.0)}),
    "gray": ({}, {}, {"channels": 1, "half_levels": 1, "fir": (1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0)}),
}


def make(kind, size=(16, 16)):
    torch.manual_seed(0)
    g_settings, d_settings, common = KINDS[kind]
    G = build_generator(StyleGAN2Config(*size, z_dim=8, w_dim=10, **SIZES, **common, **g_settings))
    D = build_discriminator(LevelsDiscriminatorConfig(*size, **SIZES, **common, **d_settings))
    G.mapping.w_avg.normal_()
    for network in (G, D):
        for p in network.parameters():
            p.data.add_(0.3 * torch.randn_like(p))
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


class StandIn(torch.nn.Module):
    """Has filters in its state_dict, as NVIDIA's networks do."""

    def __init__(self, arguments, config_class, build):
        super().__init__()
        side = arguments.pop("img_resolution")
        fields = {nvidia_writer._FIELD_NAMES.get(k, k): v for k, v in arguments.items()}
        network = build(from_json(config_class, fields | {"height": side, "width": side}))
        self.__dict__["network"] = network
        for name, module in network.named_children():
            self.add_module(name, module)
        for layer in self.modules():
            if hasattr(layer, "resample_filter"):
                is_used = getattr(layer, "up", 2) != 1 or getattr(layer, "down", 1) != 1
                taps = len(layer.resample_filter) if is_used else 4
                layer.register_buffer("resample_filter", torch.zeros([taps] if taps >= 8 else [taps, taps]))


@pytest.fixture
def repositories(monkeypatch):
    def make_classes(nested):
        class Generator(StandIn):
            def __init__(self, *, mapping_kwargs, synthesis_kwargs=None, **others):
                assert (synthesis_kwargs is None) == (not nested)
                super().__init__(others | mapping_kwargs | (synthesis_kwargs or {}), StyleGAN2Config, build_generator)

        class Discriminator(StandIn):
            def __init__(self, *, mapping_kwargs, block_kwargs, epilogue_kwargs, **others):
                arguments = others | mapping_kwargs | block_kwargs | epilogue_kwargs
                super().__init__(arguments, LevelsDiscriminatorConfig, build_discriminator)

        return {"Generator": Generator, "Discriminator": Discriminator}

    monkeypatch.setitem(sys.modules, "training", types.ModuleType("training"))
    for repository, name in REPOSITORIES.items():
        module = types.ModuleType(name)
        vars(module).update(make_classes(nested=repository == "ada"))
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, repository, repositories, tmp_path):
    G, D = make(kind)
    path = tmp_path / "model.pkl"
    write_nvidia(path, G, D, repository)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pkl"]

    unpickled = pickle.loads(path.read_bytes())
    assert unpickled["G"] is unpickled["G_ema"] and not unpickled["G"].training and not unpickled["D"].training
    for network, stand_in in ((G, unpickled["G_ema"]), (D, unpickled["D"])):
        state = stand_in.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
        assert not any(p.requires_grad for p in stand_in.parameters())
        for name, taps in network.named_buffers():
            if name.endswith("conv0.resample_filter") and network is G:
                assert torch.equal(state[name], taps if len(taps) >= 8 else taps.outer(taps))

    model = open_model(path)
    assert (model.G.config, model.D.config) == (G.config, D.config)
    for network, read in ((G, model.G), (D, model.D)):
        assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), read.state_dict().values()))


def test_without_discriminator(repositories, tmp_path):
    G, _ = make("plain")
    write_nvidia(tmp_path / "g.pkl", G, None, "sg3")
    unpickled = pickle.loads((tmp_path / "g.pkl").read_bytes())
    assert isinstance(unpickled["D"], torch.nn.Module) and not list(unpickled["D"].parameters())
    assert open_model(tmp_path / "g.pkl").D is None


def test_names_in_the_file(tmp_path):
    write_nvidia(tmp_path / "m.pkl", *make("classes"), "ada")
    operations = list(pickletools.genops((tmp_path / "m.pkl").read_bytes()))
    assert {argument for opcode, argument, _ in operations if opcode.name == "GLOBAL"} == {
        "functools partial",
        "functools partial.__call__",
        "numpy dtype",
        "numpy ndarray",
        "numpy.core.multiarray _reconstruct",
        "torch from_numpy",
        "torch.nn.modules.module Module.eval",
        "torch.nn.modules.module Module.load_state_dict",
        "torch.nn.modules.module Module.requires_grad_",
        "training.networks Discriminator",
        "training.networks Generator",
    }
    assert {opcode.name for opcode, _, _ in operations}.isdisjoint({"INST", "OBJ", "STACK_GLOBAL", "EXT1", "PERSID"})


def unsupported_networks(**changes):
    G, D = make("classes" if changes else "plain", changes.pop("size", (16, 16)))
    for network, name in ((G, "G"), (D, "D")):
        if name in changes:
            object.__setattr__(network.config, "labels", changes[name])
    return G, D


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (12, 24)}, "squares of 8, 16, 32 .* 12x24"),
        ({"size": (24, 24)}, "24x24"),
        ({"G": "concat"}, "generator supports only the labels 'embed', not 'concat'"),
        ({"D": "dot"}, "discriminator supports only the labels 'projection', not 'dot'"),
    ],
)
def test_unsupported_networks_are_refused(changes, message, tmp_path):
    with pytest.raises(SganError, match=message):
        write_nvidia(tmp_path / "m.pkl", *unsupported_networks(**changes), "ada")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"input": "fourier"}, "only a constant input, not 'fourier'"), ({"noise": False}, "only layers with noise")],
)
def test_other_inputs_and_layers_without_noise_are_refused(changes, message, tmp_path):
    G = build_generator(StyleGAN2Config(32, 32, channel_base=128, **changes))
    with pytest.raises(SganError, match=message):
        write_nvidia(tmp_path / "m.pkl", G, None, "ada")
    assert not list(tmp_path.iterdir())


def test_other_families_are_refused(tmp_path):
    orig = {"architecture": "orig", "channel_base": 64, "channel_max": 8}
    G = build_generator(StyleGANConfig(16, 16, fir=(1.0, 1.0), z_dim=8, w_dim=8, channel_base=64, channel_max=8))
    with pytest.raises(SganError, match="support only StyleGAN2 and StyleGAN3, not the family 'stylegan'"):
        write_nvidia(tmp_path / "m.pkl", G, None, "ada")
    for changes in ({"blur": (1.0, 2.0, 1.0)}, {"fade": True}):
        D = build_discriminator(LevelsDiscriminatorConfig(16, 16, **orig, **changes))
        with pytest.raises(SganError, match="does not support growing or an additional blur"):
            write_nvidia(tmp_path / "m.pkl", make("plain")[0], D, "sg3")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\ntraining.networks\nGenerator\n"[1:], b"posix\nsystem\n"),
        (b"numpy\nndarray\n", b"builtins\neval\n"),
        (b"Module.load_state_dict\n", b"Module.__init__\n"),
        (b"z_dim", b"y_dim"),
        (b"G_ema", b"G_eme"),
    ],
)
def test_modified_files_are_refused(old, new, tmp_path):
    path = tmp_path / "m.pkl"
    write_nvidia(path, *make("plain"), "ada")
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(SganError, match="m.pkl"):
        open_model(path)
