"""Checkpoints in NVIDIA's format, written from our networks, with the names and attributes of the original ones."""

import importlib.util
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from stylegan_cli.models.config import DiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


class Persistent:
    """Is pickled like NVIDIA's modules: as a call of _reconstruct_persistent_obj with its source code and __dict__."""

    def __init__(self, class_name, **attributes):
        self.class_name, self.attributes = class_name, attributes
        self.parameters, self.buffers, self.modules = {}, {}, {}

    def at(self, name):
        return self.modules.setdefault(name, Persistent("Layer"))

    def __reduce__(self):
        state = {"training": False, "_parameters": self.parameters, "_buffers": self.buffers, "_modules": self.modules}
        source = "raise SystemExit('the source was run')" + "#" * 5000
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.class_name}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (
            {**meta, "state": {**state, **self.attributes}},
        )


@pytest.fixture(scope="session")
def nvidia_modules():
    """Modules with the names of NVIDIA's, so that pickle finds the classes in them."""
    persistence = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("it was called")

    class EasyDict(dict):
        pass

    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    _reconstruct_persistent_obj.__qualname__, EasyDict.__qualname__ = "_reconstruct_persistent_obj", "EasyDict"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict
    names = {"torch_utils.persistence": persistence, "dnnlib.util": util}
    names |= {name: types.ModuleType(name) for name in ("torch_utils", "dnnlib")}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    yield EasyDict
    for name, module in before.items():
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module


def tree_of(network, frozen=()):
    """The tensors of a network in a tree of modules; those whose names start with a prefix in `frozen` are buffers."""
    root = Persistent(type(network).__name__)
    for name, tensor in network.state_dict().items():
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place.at(part)
        is_buffer = last in ("noise_const", "w_avg") or name.startswith(tuple(frozen)) and frozen
        group = place.buffers if is_buffer else place.parameters
        group[last] = tensor.clone() if is_buffer else torch.nn.Parameter(tensor.clone())
    return root


def describe_generator(root, config):
    root.attributes |= {"_init_args": (), "_init_kwargs": {}, "z_dim": config.z_dim, "c_dim": config.c_dim}
    mapping, synthesis = root.at("mapping"), root.at("synthesis")
    mapping.attributes |= {name: getattr(config, name) for name in ("z_dim", "c_dim", "w_dim", "w_avg_beta")}
    mapping.attributes |= {"num_layers": config.mapping_layers, "num_ws": 5}
    for name, fc in mapping.modules.items():
        fc.attributes |= {"activation": "lrelu" if name != "embed" else "linear", "bias_gain": config.mapping_lr}
    synthesis.attributes |= {"img_resolution": config.height, "img_channels": config.channels}
    levels = sorted(synthesis.modules, key=lambda n: int(n[1:]))
    for place, (name, block) in enumerate((n, synthesis.modules[n]) for n in levels):
        describe_block(block, config, len(levels) - place <= config.half_levels and name != "b4")


def describe_discriminator(root, config):
    root.attributes |= {"img_resolution": config.height, "img_channels": config.channels, "c_dim": config.c_dim}
    levels = sorted((n for n in root.modules if n[0] == "b"), key=lambda n: -int(n[1:]))
    for place, name in enumerate(levels[:-1]):
        describe_block(root.modules[name], config, place < config.half_levels)
    mbstd = Persistent("Mbstd", group_size=config.mbstd_group, num_channels=config.mbstd_channels)
    root.modules["b4"].modules["mbstd"] = mbstd
    if mapping := root.modules.get("mapping"):
        mapping.attributes["num_layers"] = config.mapping_layers
        for name, fc in mapping.modules.items():
            fc.attributes |= {"activation": "linear" if name == "embed" else "lrelu", "bias_gain": config.mapping_lr}


def describe_block(block, config, half):
    fir = torch.tensor(config.fir)
    block.attributes |= {"architecture": config.architecture, "use_fp16": half}
    block.buffers["resample_filter"] = fir[:, None] * fir / fir.sum() ** 2
    for name, layer in block.modules.items():
        clamp = None if name == "skip" else config.conv_clamp
        layer.attributes |= {"conv_clamp": clamp, "activation": "linear" if name in ("skip", "torgb") else "lrelu"}


@pytest.fixture(scope="session")
def networks():
    """Small networks with random weights, biases and noise strengths: networks(seed, ...) -> (G, D)."""

    def make(
        seed=0, size=16, c_dim=0, architecture="skip", d_architecture="resnet", fir=(1.0, 3.0, 3.0, 1.0), **common
    ):
        torch.manual_seed(seed)
        common = {"c_dim": c_dim, "channel_base": 64, "channel_max": 8, "fir": fir, "half_levels": 0} | common
        config = StyleGAN2Config(size, size, z_dim=6, w_dim=5, mapping_layers=2, architecture=architecture, **common)
        d_config = DiscriminatorConfig(size, size, architecture=d_architecture, mbstd_group=2, **common)
        G, D = build_generator(config), build_discriminator(d_config)
        for network in (G, D):
            for tensor in network.state_dict().values():
                tensor.add_(torch.randn_like(tensor) * 0.2)
            network.eval().requires_grad_(False)
        return G, D

    return make


@pytest.fixture(scope="session")
def nvidia_bytes(nvidia_modules):
    """A pickle in NVIDIA's format: nvidia_bytes(G, D) -> bytes."""

    def make(G, D=None, protocol=4, frozen=(), change=None):
        g = tree_of(G)
        describe_generator(g, G.config)
        content = {"G": g, "G_ema": g, "D": None, "augment_pipe": Persistent("AugmentPipe")}
        if D is not None:
            content["D"] = tree_of(D, frozen)
            describe_discriminator(content["D"], D.config)
        content["augment_pipe"].buffers["p"] = torch.tensor(0.25)
        content["training_set_kwargs"] = nvidia_modules(path="/data/faces.zip", use_labels=False)
        if change:
            change(content)
        return pickle.dumps(content, protocol)

    return make


@pytest.fixture(scope="session")
def plain():
    """The module plain_stylegan2.py, which is not on the import path."""
    spec = importlib.util.spec_from_file_location("plain_stylegan2", Path(__file__).with_name("plain_stylegan2.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def Network():
    """A class that is pickled as dnnlib.tflib.network.Network."""
    modules = {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network")}

    class Network:
        def __init__(self, version, variables, arguments, **components):
            self.version, self.name, self.components, self.static_kwargs = version, "x", components, arguments
            self.variables = list(variables.items())
            self.build_module_src, self.build_func_name = "import os; os.abort()", "build"

    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    modules["dnnlib.tflib.network"].Network = Network
    sys.modules.update(modules)
    yield Network
    for name in modules:
        del sys.modules[name]
