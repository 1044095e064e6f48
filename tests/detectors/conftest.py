"""Weights for the detectors, drawn by counter, and images for them."""

import importlib
import re
import sys

import pytest
import torch

from stylegan_cli.detectors.frozen import wanted_shapes
from stylegan_cli.sampling.counter import normal, uniform


@pytest.fixture(scope="session")
def drawn_weights():
    """Weights that keep a signal's size from layer to layer: drawn_weights(network) -> tensors by file name."""

    def draw(network):
        return {name: _drawn(name, shape) for name, shape in wanted_shapes(network).items()}

    return draw


def _drawn(name, shape):
    index = torch.zeros(1, dtype=torch.int64)
    if name.endswith("running_var"):
        return uniform(5, name, index, shape)[0] + 0.5
    values = normal(5, name, index, shape)[0]
    if len(shape) > 1:  # a ReLU takes half of the power
        return values * (2 / values[0].numel()) ** 0.5
    return values * 0.1 + (1 if name.endswith("bn.weight") else 0)


@pytest.fixture(scope="session")
def make_images():
    """Blots of some size, unlike each other: images(num, height, width) -> uint8 [N, 3, H, W]."""

    def draw(num, height, width):
        coarse = uniform(6, "blots", torch.arange(num), (3, 4, 4))
        fine = uniform(6, "grain", torch.arange(num), (3, height, width))
        wide = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
        return (wide * 200 + fine * 55).to(torch.uint8)

    return draw


@pytest.fixture(scope="session")
def oracle():
    """Import a package that imports torchvision, whatever build that is: oracle('torch_fidelity') -> the module."""
    library = torch.library.Library("torchvision", "FRAGMENT")

    def load(name):
        for _ in range(8):
            try:
                return importlib.import_module(name)
            except ImportError as e:
                pytest.skip(f"{name} cannot be imported: {e}")
            except RuntimeError as e:  # beside another build, torchvision misses its own operators
                missing = re.search(r"operator torchvision::(\w+) does not exist", str(e))
                if not missing:
                    raise
                library.define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
                for module in [m for m in sys.modules if m.split(".")[0] in ("torchvision", name.split(".")[0])]:
                    del sys.modules[module]
        raise AssertionError(f"{name} still cannot be imported")

    yield load
    library._destroy()
