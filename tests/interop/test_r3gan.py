"""R3GAN's pickles: whole modules, saved by reference to their classes, and state dictionaries."""

import pickle
import sys
import types

import pytest
import torch
from torch import nn

from stylegan_cli.errors import SganError
from stylegan_cli.interop.opening import open_model
from stylegan_cli.models.r3gan.config import R3GANConfig, R3GANDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator

from . import plain_r3gan as plain

PROGRAM = ("training.networks", "R3GAN.Networks")
NETWORK = {"channel_base": 256, "channel_max": 24, "group_channels": 16}  # the plain networks in our terms


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


def states(c_dim):
    """Weights of both networks by the names of their program."""
    return (
        plain.weights(plain.generator_shapes(c_dim), seed=0),
        plain.weights(plain.discriminator_shapes(c_dim), seed=1),
    )


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
    g, d = states(c_dim)
    tree = {"G": {}, "D": d, "G_ema": g, "cur_nimg": 5000}
    if whole:
        tree["D"] = module_of(d, classes, "Discriminator", half=(0,), program=whole)
        tree["G_ema"] = module_of(g, classes, "Generator", half=(2,), program=whole)
    (tmp_path / "r3gan.pkl").write_bytes(pickle.dumps(tree))
    model = open_model(tmp_path / "r3gan.pkl")
    common = {"c_dim": c_dim, "half_levels": 1 if whole else 4, **NETWORK}
    assert model.G.config == R3GANConfig(16, 16, z_dim=plain.Z_DIM, **common)
    assert model.D.config == R3GANDiscriminatorConfig(16, 16, **common)
    z, c = torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 2]] if c_dim else None
    image = model.G(z, c)
    torch.testing.assert_close(image, plain.generate(g, z, c), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.D(image, c)[:, 0], plain.judge(d, image, c), rtol=1e-5, atol=1e-5)
    mean = model.G.mapping.w_avg
    assert not mean[:8].abs().gt(0.05).any()
    if c_dim:  # the mean of the embedded labels
        torch.testing.assert_close(mean[8:], g["Model.EmbeddingLayer.weight"].mean(1), atol=1e-4, rtol=0)


def test_what_differs_is_refused(tmp_path):
    def refusal(change):
        g, _ = states(0)
        change(g)
        torch.save({"G_ema": g}, tmp_path / "x.pt")
        with pytest.raises(SganError) as e:
            open_model(tmp_path / "x.pt")
        return str(e.value)

    block = "Model.MainLayers.2.Layers.2"
    fewer = plain.block_shapes(block, 16)
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

    G = build_generator(R3GANConfig(16, 16, z_dim=8, **NETWORK))
    D = build_discriminator(R3GANDiscriminatorConfig(16, 16, **NETWORK))
    with pytest.raises(SganError, match="not the family 'r3gan'"):
        write_nvidia(tmp_path / "m.pkl", G, D, "sg3")
    with pytest.raises(SganError, match="not the family 'r3gan'"):
        write_rosinality(tmp_path / "m.pt", G, D)
