"""Pickles for NVIDIA's repositories: built by Python's own pickle where the classes are, read back by our reader.

The classes here stand in for theirs: they take their arguments, keep weights by their names, and draw by our networks.
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
from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SIZES = {"channel_base": 64, "channel_max": 12, "mapping_layers": 2}
KINDS = {  # settings of G, of D, of both
    "plain": ({}, {}, {}),
    "classes": ({}, {"mbstd_channels": 2, "mbstd_group": None}, {"c_dim": 3, "mapping_lr": 0.1}),
    "resnet": ({"architecture": "resnet", "w_avg_beta": 0.998}, {"architecture": "skip"}, {"conv_clamp": None}),
    "orig": ({"architecture": "orig"}, {"architecture": "orig", "mbstd_channels": 0}, {"fir": (1.0, 2.0, 1.0)}),
    "gray": ({}, {}, {"channels": 1, "half_levels": 1, "fir": (1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0)}),
}


def make(kind, size=(16, 16)):
    torch.manual_seed(0)
    own_G, own_D, both = KINDS[kind]
    G = build_generator(StyleGAN2Config(*size, z_dim=8, w_dim=10, **SIZES, **both, **own_G))
    D = build_discriminator(DiscriminatorConfig(*size, **SIZES, **both, **own_D))
    G.mapping.w_avg.normal_()
    for network in (G, D):
        for p in network.parameters():
            p.data.add_(0.3 * torch.randn_like(p))
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


class StandIn(torch.nn.Module):
    """Keeps its filters in its state, as theirs do."""

    def __init__(self, arguments, kind, build):
        super().__init__()
        side = arguments.pop("img_resolution")
        ours = {nvidia_writer._OURS.get(k, k): v for k, v in arguments.items()}
        network = build(from_json(kind, ours | {"height": side, "width": side}))
        self.__dict__["network"] = network
        for name, module in network.named_children():
            self.add_module(name, module)
        for layer in self.modules():
            if hasattr(layer, "resample_filter"):
                used = getattr(layer, "up", 2) != 1 or getattr(layer, "down", 1) != 1
                taps = len(layer.resample_filter) if used else 4
                layer.register_buffer("resample_filter", torch.zeros([taps] if taps >= 8 else [taps, taps]))


@pytest.fixture
def repositories(monkeypatch):
    def their_networks(nested):
        class Generator(StandIn):
            def __init__(self, *, mapping_kwargs, synthesis_kwargs=None, **others):
                assert (synthesis_kwargs is None) == (not nested)
                super().__init__(others | mapping_kwargs | (synthesis_kwargs or {}), StyleGAN2Config, build_generator)

        class Discriminator(StandIn):
            def __init__(self, *, mapping_kwargs, block_kwargs, epilogue_kwargs, **others):
                arguments = others | mapping_kwargs | block_kwargs | epilogue_kwargs
                super().__init__(arguments, DiscriminatorConfig, build_discriminator)

        return {"Generator": Generator, "Discriminator": Discriminator}

    monkeypatch.setitem(sys.modules, "training", types.ModuleType("training"))
    for repository, name in REPOSITORIES.items():
        module = types.ModuleType(name)
        vars(module).update(their_networks(nested=repository == "ada"))
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind, repository, repositories, tmp_path):
    G, D = make(kind)
    path = tmp_path / "model.pkl"
    write_nvidia(path, G, D, repository)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pkl"]

    theirs = pickle.loads(path.read_bytes())
    assert theirs["G"] is theirs["G_ema"] and not theirs["G"].training and not theirs["D"].training
    for our, their in ((G, theirs["G_ema"]), (D, theirs["D"])):
        kept = their.state_dict()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in our.state_dict().items())
        assert not any(p.requires_grad for p in their.parameters())
        for name, taps in our.named_buffers():
            if name.endswith("conv0.resample_filter") and our is G:
                assert torch.equal(kept[name], taps if len(taps) >= 8 else taps.outer(taps))

    back = open_model(path)
    assert (back.G.config, back.D.config) == (G.config, D.config)
    for ours, read in ((G, back.G), (D, back.D)):
        assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), read.state_dict().values()))


def test_without_discriminator(repositories, tmp_path):
    G, _ = make("plain")
    write_nvidia(tmp_path / "g.pkl", G, None, "sg3")
    theirs = pickle.loads((tmp_path / "g.pkl").read_bytes())
    assert isinstance(theirs["D"], torch.nn.Module) and not list(theirs["D"].parameters())
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


def refused(**changes):
    G, D = make("classes" if changes else "plain", changes.pop("size", (16, 16)))
    for network, name in ((G, "G"), (D, "D")):
        if name in changes:
            object.__setattr__(network.config, "labels", changes[name])
    return G, D


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"size": (12, 24)}, "squares of 8, 16, 32 .* 12x24"),
        ({"size": (24, 24)}, "24x24"),
        ({"G": "concat"}, "by themselves"),
        ({"D": "dot"}, "for each class"),
    ],
)
def test_what_they_lack_is_refused(changes, why, tmp_path):
    with pytest.raises(SganError, match=why):
        write_nvidia(tmp_path / "m.pkl", *refused(**changes), "ada")
    assert not list(tmp_path.iterdir())


def test_other_families_are_refused(tmp_path):
    orig = {"architecture": "orig", "channel_base": 64, "channel_max": 8}
    G = build_generator(StyleGANConfig(16, 16, fir=(1.0, 1.0), z_dim=8, w_dim=8, channel_base=64, channel_max=8))
    with pytest.raises(SganError, match="are StyleGAN2s: this generator is of the family 'stylegan'"):
        write_nvidia(tmp_path / "m.pkl", G, None, "ada")
    for changes in ({"blur": (1.0, 2.0, 1.0)}, {"fade": True}):
        D = build_discriminator(DiscriminatorConfig(16, 16, **orig, **changes))
        with pytest.raises(SganError, match="neither grows nor blurs"):
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
def test_changed_files_are_refused(old, new, tmp_path):
    path = tmp_path / "m.pkl"
    write_nvidia(path, *make("plain"), "ada")
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(SganError, match="m.pkl"):
        open_model(path)
