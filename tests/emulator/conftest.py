"""The emulator for the tests of csrc/, and the device that ops with kernels run on."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from stylegan_cli import ops
from stylegan_cli.ops import dispatch


def load(name):
    """A module of this folder, which is not importable by name."""
    spec = importlib.util.spec_from_file_location(f"emulator_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def harness():
    module = load("harness")
    if reason := module.missing():
        pytest.skip(reason)
    return module


@pytest.fixture(scope="session")
def emulator(request):
    """An emulator with all launchers of csrc/: emulator.call('bias_act', x=..., out=..., ...)."""
    if tool := os.environ.get("SGAN_SANITIZER"):
        return load("on_gpu").SanitizedKernels(tool)
    return request.getfixturevalue("harness").Emulator()


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """The device that the kernels run on. Ops use the kernels by default."""
    if request.param == "gpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = "cuda" if request.param == "gpu" else "cpu"
    if device == "cpu":
        torch.ops.load_library(str(request.getfixturevalue("harness").build_library()))
    with dispatch.kernels_on(device), ops.use("cuda"):
        yield device


@pytest.fixture
def randn(device):
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, **options: (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device).to(**options)
    )
