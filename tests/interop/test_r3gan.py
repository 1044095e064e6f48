"""R3GAN's pickles: whole modules, saved by reference to their classes, and state dictionaries."""

import pickle
import sys
import types

import pytest
import torch
from torch import nn

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import open_model
from stylegan_cli.models.r3gan import checkpoints
from stylegan_cli.models.r3gan.config import R3GANConfig, R3GANDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator

CHANNELS = [24, 24, 16]  # of the levels 4, 8 and 16
PROGRAM = ("training.networks", "R3GAN.Networks")
NETWORK = {"channel_base": 256, "channel_max": 24, "group_channels": 16}


@pytest.fixture
def classes(monkeypatch):
    """Stand-ins for the program's classes, which a pickle names: classes(module, name) -> a class."""
    made = {}

    def make(module, name):
        if (module, name) not in made:
            made[module, name] = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
            for depth in range(1, module.count(".") + 2):
                package = ".".join(module.split(".")[:depth])
                monkeypatch.setitem(sys.modules, package, sys.modules.get(package) or types.ModuleType(package))
            monkeypatch.setattr(sys.modules[module], name, made[module, name], raising=False)
        return made[module, name]

    return make


def networks(c_dim):
    torch.manual_seed(0)
    G = build_generator(R3GANConfig(16, 16, z_dim=8, c_dim=c_dim, **NETWORK))
    D = build_discriminator(R3GANDiscriminatorConfig(16, 16, c_dim=c_dim, **NETWORK))
    for network in (G, D):
        for p in network.parameters():
            p.data += 0.1 * torch.randn_like(p)
        network.eval().requires_grad_(False)
    return G, D


def their_states(G, D):
    """Their state dictionaries, with the filters that their modules hold."""
    conditional = G.config.c_dim > 0
    names = checkpoints.generator_names(CHANNELS, 2, conditional)
    d_names = checkpoints.discriminator_names(CHANNELS[::-1], 2, conditional)
    states = [{s: n.state_dict()[ours] for ours, (s, _) in t.items()} for n, t in ((G, names), (D, d_names))]
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for state, places in zip(states, (("1.Layers.0", "2.Layers.0"), ("0.Layers.2", "1.Layers.2")), strict=True):
        for place in places:
            state[f"Model.MainLayers.{place}.Resampler.Kernel"] = torch.outer(taps, taps) / 64
    return states


def module_of(state, classes, name, half, program=PROGRAM):
    root = classes(program[0], name)()
    for path, tensor in state.items():
        *parents, leaf = path.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, classes(program[1], "Part")())
            module = module._modules[parent]
        if leaf == "Kernel":
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor))
    for k, stage in root.Model.MainLayers._modules.items():
        stage.DataType = torch.bfloat16 if int(k) in half else torch.float32
    return root


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("whole", [PROGRAM, ("training.networks_baseline", "BaselineGAN.Networks"), None])
def test_networks_are_read(classes, tmp_path, c_dim, whole):
    """Whole modules, also under the earlier name of the program, that of its published models; or their weights."""
    G, D = networks(c_dim)
    g, d = their_states(G, D)
    tree = {"G": {}, "D": d, "G_ema": g, "cur_nimg": 5000}
    if whole:
        tree["D"] = module_of(d, classes, "Discriminator", half=(0,), program=whole)
        tree["G_ema"] = module_of(g, classes, "Generator", half=(2,), program=whole)
    (tmp_path / "r3gan.pkl").write_bytes(pickle.dumps(tree))
    model = open_model(tmp_path / "r3gan.pkl")
    expected = {**vars(G.config), "half_levels": 1 if whole else 4}
    assert vars(model.G.config) == expected and vars(model.D.config) == {
        **vars(D.config),
        "half_levels": expected["half_levels"],
    }
    z, c = torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 2]] if c_dim else None
    assert torch.equal(model.G(z, c), G(z, c))
    assert torch.equal(model.D(G(z, c), c), D(G(z, c), c))
    mean = model.G.mapping.w_avg
    assert not mean[:8].abs().gt(0.05).any()
    if c_dim:  # the mean of the embedded labels
        torch.testing.assert_close(mean[8:], G.mapping.embed.weight.mean(1), atol=1e-4, rtol=0)


def test_what_differs_is_refused(tmp_path):
    G, D = networks(0)

    def refusal(change):
        g, _ = their_states(G, D)
        change(g)
        torch.save({"G_ema": g}, tmp_path / "x.pt")
        with pytest.raises(SganError) as e:
            open_model(tmp_path / "x.pt")
        return str(e.value)

    block = "Model.MainLayers.2.Layers.2"
    fewer = [f"{block}.{name}" for name in checkpoints._BLOCK.values()]
    assert "different numbers of blocks (1, 2)" in refusal(lambda g: [g.pop(name) for name in fewer])
    assert "has no Model.MainLayers.0.Layers.0.Basis" in refusal(lambda g: g.pop("Model.MainLayers.0.Layers.0.Basis"))
    assert "Extra" in refusal(lambda g: g.update({"Model.Extra.weight": torch.zeros(2)}))
    kernel = "Model.MainLayers.1.Layers.0.Resampler.Kernel"
    assert "not separable" in refusal(lambda g: g.update({kernel: torch.eye(4)}))
    wider = f"{block}.LinearLayer1.Layer.weight"
    assert "x.pt" in refusal(lambda g: g.update({wider: torch.zeros(33, 16, 1, 1)}))
    embedding = {"Model.EmbeddingLayer.weight": torch.zeros(3, 2)}
    assert "embedding of 3 numbers" in refusal(lambda g: g.update(embedding))


def test_such_a_model_is_not_written_for_other_programs(tmp_path):
    from stylegan_cli.interop.nvidia_writer import write_nvidia
    from stylegan_cli.interop.rosinality_writer import write_rosinality

    G, D = networks(0)
    with pytest.raises(SganError, match="not the family 'r3gan'"):
        write_nvidia(tmp_path / "m.pkl", G, D, "sg3")
    with pytest.raises(SganError, match="not the family 'r3gan'"):
        write_rosinality(tmp_path / "m.pt", G, D)
