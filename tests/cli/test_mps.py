"""--device mps, on a fake device: the images of the CPU, without float64, CUDA kernels or a fused optimizer."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stylegan_cli.cli import call, metrics, train
from stylegan_cli.cli.call import resolve_device
from stylegan_cli.errors import SganError
from stylegan_cli.metrics.statistics import Moments, Splits
from stylegan_cli.ops import dispatch

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # it says that nothing is copied


@pytest.fixture
def gpu(monkeypatch):
    """The fake device, as mps; its `ops` are the operations that ran on it."""
    spec = importlib.util.spec_from_file_location("fake_gpu", Path(__file__).parents[1] / "_fake_gpu.py")
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setattr(dispatch, "WITHOUT_FLOAT64", ("meta",))
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    for module in (call, metrics, train):
        own = module.resolve_device
        monkeypatch.setattr(module, "resolve_device", lambda name, own=own: fake.DEVICE if name == "mps" else own(name))
    with fake.FakeGPU() as gpu:
        yield gpu
    os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)


COMMANDS = {
    "generate --seeds 0-1 --trunc 0.7": "seed0001.png",
    "generate --seeds 3 --noise-mode random": "seed0003.png",
    "mix --rows 1 --cols 2,3": "mix.png",
    "interpolate --seeds 1-3 --kind slerp --frames 2": "interpolate.gif",
    "interpolate --seeds 1-3 --frames 2": "interpolate.gif",
    "interpolate --seeds 1-3 --kind linear --frames 2": "interpolate.gif",
    "noise --seeds 1 --draws 3": "noise.png",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_images_as_on_the_cpu(sgan, gpu, tmp_path, command):
    images = []
    for device in ("cpu", "mps"):
        gpu.ops.clear()
        folder = tmp_path / device
        sgan(*command.split(), "-q", "--device", device, "--outdir", folder, "--runs", tmp_path)
        images.append(np.asarray(Image.open(folder / COMMANDS[command])).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1
    assert "convolution" in gpu.ops and not any("fused" in op for op in gpu.ops)


def test_projection(sgan, gpu, tmp_path):
    for device in ("cpu", "mps"):
        sgan("generate", "--seeds", "5", "-q", "--device", "cpu", "--outdir", tmp_path, "--runs", tmp_path)
        arguments = ["--steps", "4", "--loss", "discriminator", "--tune", "2", "--space", "w+", "--runs", tmp_path]
        sgan("project", tmp_path / "seed0005.png", *arguments, "-q", "--device", device, "--outdir", tmp_path / device)
    with np.load(tmp_path / "cpu" / "projected.npz") as a, np.load(tmp_path / "mps" / "projected.npz") as b:
        assert np.abs(a["w"] - b["w"]).max() < 1e-3
    assert "convolution_backward" in gpu.ops


def test_training(sgan, gpu, tmp_path, rgb_set):
    """Two steps with both regularizers and adaptive augmentation, resumed from the CPU's first."""
    options = ["--data", rgb_set, "--cbase", "64", "--cmax", "8", "--batch", "8", "--cfg", "auto", "--map-depth", "2"]
    snapshots = []
    for device in ("cpu", "mps"):
        runs = tmp_path / device
        sgan("train", *options, "--kimg", "0.008", "-q", "--device", "cpu", "--runs", runs)
        (folder,) = runs.iterdir()
        sgan("train", "--resume", folder, "--kimg", "0.04", "-q", "--device", device)
        snapshots.append(load_file(folder / "snapshot-000000.040.safetensors"))
    assert {"convolution_backward", "grid_sampler_2d"} <= gpu.ops and not any("fused" in op for op in gpu.ops)
    for name, tensor in snapshots[0].items():
        assert (tensor - snapshots[1][name]).abs().max() < 1e-3, name


@pytest.mark.parametrize("kind", [Moments, Splits])
def test_statistics_of_metrics_are_in_float64(gpu, kind):
    results = []
    for device in ("cpu", "meta"):
        statistic, x = kind("pool", 40), torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).to(device)
        for part in torch.arange(40).split(16):
            statistic.add(part, {"pool": x[part[0] : part[-1] + 1]})
        results.append(statistic.result())
    for name, value in results[0].items():
        assert torch.equal(results[1][name], value) and value.dtype == results[1][name].dtype


def test_an_apple_gpu_is_used_only_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")
    with dispatch.use("cuda"), pytest.raises(SganError, match="kernels need a GPU, but the device is mps"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SganError, match="Device 'mps' is not available: PyTorch finds no Apple GPU"):
        resolve_device("mps")


def test_ops_use_the_composite(monkeypatch):
    assert dispatch.choose("mps") == "composite"
    with dispatch.use("cuda"), pytest.raises(ValueError, match="cannot run on mps tensors"):
        dispatch.choose("mps")


@pytest.mark.parametrize("before", [None, "0"])
def test_pytorch_may_fall_back_to_the_cpu(sgan, monkeypatch, tmp_path, before):
    """It reads the variable when it is imported, so a new process shows that it is set before; a user's own is kept."""
    code = """
import os, sys
from stylegan_cli.cli import main
import stylegan_cli.cli.call as call
def show(name):
    print(os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK"), name)
    raise SystemExit
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            show(name)
sys.meta_path.insert(0, Finder())
main(["generate", "--device", sys.argv[1], "--runs", sys.argv[2]])
"""
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", before)
    for device, expected in (("mps", before or "1"), ("cpu", before)):
        command = [sys.executable, "-c", code, device, str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.stdout == f"{expected} torch\n", result.stderr
