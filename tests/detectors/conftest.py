"""Reproducible random weights for the detectors, and images for them."""

import importlib
import re
import sys

import pytest
import torch

from stylegan_cli.detectors.frozen import expected_shapes
from stylegan_cli.sampling.counter import normal, uniform


@pytest.fixture(scope="session")
def random_weights():
    """Random weights that preserve the signal's magnitude: random_weights(network) -> tensors by name in a file."""

    def create(network):
        return {name: _random_tensor(name, shape) for name, shape in expected_shapes(network).items()}

    return create


def _random_tensor(name, shape):
    index = torch.zeros(1, dtype=torch.int64)
    if name.endswith("running_var"):
        return uniform(5, name, index, shape)[0] + 0.5
    values = normal(5, name, index, shape)[0]
    if len(shape) > 1:  # ReLU halves the power
        return values * (2 / values[0].numel()) ** 0.5
    return values * 0.1 + (1 if name.endswith("bn.weight") else 0)


@pytest.fixture(scope="session")
def make_images():
    """Random images of coarse blocks and fine noise: make_images(num, height, width) -> uint8 [N, 3, H, W]."""

    def create(num, height, width):
        coarse = uniform(6, "blots", torch.arange(num), (3, 4, 4))
        fine = uniform(6, "grain", torch.arange(num), (3, height, width))
        wide = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
        return (wide * 200 + fine * 55).to(torch.uint8)

    return create


@pytest.fixture(scope="session")
def oracle():
    """Import a package that needs torchvision, even if its build does not match: oracle('torch_fidelity') -> module."""
    library = torch.library.Library("torchvision", "FRAGMENT")

    def load(name):
        for _ in range(8):
            try:
                return importlib.import_module(name)
            except ImportError as e:
                pytest.skip(f"{name} cannot be imported: {e}")
            except RuntimeError as e:  # torchvision of another build lacks its own operators
                missing = re.search(r"operator torchvision::(\w+) does not exist", str(e))
                if not missing:
                    raise
                library.define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
                for module in [m for m in sys.modules if m.split(".")[0] in ("torchvision", name.split(".")[0])]:
                    del sys.modules[module]
        raise AssertionError(f"{name} still cannot be imported")

    yield load
    library._destroy()
