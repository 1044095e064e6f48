"""Checkpoints in NVIDIA's format, written from our networks, with the names and attributes of the original ones."""

import importlib.util
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

BUFFERS = ("noise_const", "w_avg", "freqs", "phases", "magnitude_ema")


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
        is_buffer = last in BUFFERS or name.startswith(tuple(frozen)) and frozen
        group = place.buffers if is_buffer else place.parameters
        group[last] = tensor.clone() if is_buffer else torch.nn.Parameter(tensor.clone())
    return root


def describe_generator(root, config):
    root.attributes |= {"_init_args": (), "_init_kwargs": {}, "z_dim": config.z_dim, "c_dim": config.c_dim}
    describe_mapping(root, config)
    if isinstance(config, StyleGAN3Config):
        describe_stylegan3(root.at("synthesis"), config)
        return
    synthesis = root.at("synthesis")
    synthesis.attributes |= {"img_resolution": config.height, "img_channels": config.channels}
    levels = sorted(synthesis.modules, key=lambda n: int(n[1:]))
    for place, (name, block) in enumerate((n, synthesis.modules[n]) for n in levels):
        describe_block(block, config, len(levels) - place <= config.half_levels and name != "b4")


def describe_mapping(root, config):
    mapping = root.at("mapping")
    mapping.attributes |= {name: getattr(config, name) for name in ("z_dim", "c_dim", "w_dim", "w_avg_beta")}
    mapping.attributes |= {"num_layers": config.mapping_layers, "num_ws": 5}
    for name, fc in mapping.modules.items():
        fc.attributes |= {"activation": "lrelu" if name != "embed" else "linear", "bias_gain": config.mapping_lr}


def describe_stylegan3(synthesis, config):
    """The attributes and filters of a network with the published schedule, by the plain definition."""
    plain, radial = load("models/plain_stylegan3.py"), config.radial
    size = {"w_dim": config.w_dim, "img_resolution": config.height, "img_channels": config.channels}
    settings = {"channel_base": config.channel_base, "channel_max": config.channel_max, "magnitude_ema_beta": 0.9989}
    settings |= {"conv_kernel": 1, "use_radial_filters": True} if radial else {}
    settings |= {"num_fp16_res": 0, "conv_clamp": None} if config.conv_clamp is None else {}
    names = sorted((n for n in synthesis.modules if n != "input"), key=lambda n: int(n[1:].split("_")[0]))
    synthesis.attributes |= size | {"_init_kwargs": size | settings, "layer_names": names, "output_scale": 0.25}
    levels = settings.get("num_fp16_res", 4)
    synthesis.attributes |= {"num_layers": 14, "num_critical": 2, "margin_size": 10, "num_fp16_res": levels}
    rows = plain.sampling(config.height)
    entry = synthesis.at("input")
    entry.buffers["transform"] = torch.eye(3)
    entry.attributes |= {"sampling_rate": np.float64(rows[0][0]), "bandwidth": np.float64(rows[0][1])}
    for i, name in enumerate(names):
        (rate, cutoff, width, side), (new_rate, new_cutoff, new_width, new_side) = rows[max(i - 1, 0)], rows[i]
        is_torgb, kernel = i == 14, 1 if i == 14 or radial else 3
        high = max(rate, new_rate) * (1 if is_torgb else 2)
        up, down, is_radial = high // rate, high // new_rate, radial and i < 12
        layer, taps = synthesis.at(name), (1, 1) if is_torgb else (6 * up, 6 * down)
        total = (new_side - 1) * down + 1 - (side + kernel - 1) * up + sum(taps) - 2
        low = (total + up) // 2
        layer.attributes |= {"is_torgb": is_torgb, "conv_kernel": kernel, "conv_clamp": config.conv_clamp}
        layer.attributes |= {"up_factor": up, "down_factor": down, "down_radial": is_radial}
        layer.attributes |= {"up_taps": taps[0], "down_taps": taps[1], "padding": [low, total - low] * 2}
        layer.buffers |= {"up_filter": None, "down_filter": None}
        if not is_torgb:
            design = plain.radial_filter if is_radial else plain.separable_filter
            layer.buffers["up_filter"] = plain.separable_filter(taps[0], cutoff, width, high).float()
            layer.buffers["down_filter"] = design(taps[1], new_cutoff, new_width, high).float()


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
    conv, direction = ("conv0", "up") if isinstance(config, StyleGAN2Config) else ("conv1", "down")
    block.attributes |= {"architecture": config.architecture, "use_fp16": half}
    used, idle = (f[:, None] * f / f.sum() ** 2 for f in (torch.tensor(config.fir), torch.tensor([1.0, 3, 3, 1])))
    block.buffers["resample_filter"] = used
    for name, layer in block.modules.items():
        clamp = None if name == "skip" else config.conv_clamp
        layer.attributes |= {"conv_clamp": clamp, "activation": "linear" if name in ("skip", "torgb") else "lrelu"}
        if name not in ("torgb", "fc", "out", "mbstd"):  # convolutions keep a filter, whether they resample or not
            layer.attributes |= {"up": 1, "down": 1} | ({direction: 2} if name in (conv, "skip") else {})
            layer.buffers["resample_filter"] = used if name in (conv, "skip") else idle


@pytest.fixture(scope="session")
def networks():
    """Small networks with random weights, biases and noise strengths: networks(seed, ...) -> (G, D)."""

    def make(
        seed=0, size=16, c_dim=0, architecture="skip", d_architecture="resnet", fir=(1.0, 3.0, 3.0, 1.0), **common
    ):
        torch.manual_seed(seed)
        common = {"c_dim": c_dim, "channel_base": 64, "channel_max": 8, "fir": fir, "half_levels": 0} | common
        config = StyleGAN2Config(size, size, z_dim=6, w_dim=5, mapping_layers=2, architecture=architecture, **common)
        d_config = LevelsDiscriminatorConfig(size, size, architecture=d_architecture, mbstd_group=2, **common)
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
    return load("interop/plain_stylegan2.py")


@pytest.fixture(scope="session")
def plain_encoders():
    """The module plain_encoders.py."""
    return load("interop/plain_encoders.py")


@pytest.fixture(scope="session")
def plain3():
    """The module plain_stylegan3.py, which the tests of models share."""
    return load("models/plain_stylegan3.py")


def load(path):  # in the folder of the tests
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
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
