"""The kernels' tests under compute-sanitizer, as far as they can run without a GPU."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
import torch

from stylegan_cli.kernels.toolchain import find_nvcc


@pytest.fixture
def on_gpu():
    spec = importlib.util.spec_from_file_location("emulator_on_gpu", Path(__file__).with_name("on_gpu.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def activate(kernels, x):
    out, rest = torch.empty_like(x), {"alpha": 0.2, "gain": 1.0, "clamp": 2.0, "order": 0, "act": "lrelu"}
    rest |= {"channels_last": 0, "noise_stride": 0, "dtype": x.dtype}
    kernels.call("bias_act", x=x, out=out, n=2, c=3, p=16, **rest)
    return out


@pytest.fixture
def sanitized(on_gpu, emulator, monkeypatch, tmp_path):
    """Starts the emulator's program with this shell script as the sanitizer."""

    def make(script):
        path = tmp_path / "compute-sanitizer"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(on_gpu, "find_sanitizer", lambda: str(path))
        monkeypatch.setattr(on_gpu, "build", lambda sources, defines: emulator.program)
        return on_gpu.SanitizedKernels("racecheck")

    return make


def test_calls_under_a_sanitizer(sanitized, tmp_path):
    kernels = sanitized(f'echo "$@" > {tmp_path}/log; shift 4; exec "$@"')
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(activate(kernels, x), torch.nn.functional.leaky_relu(x, 0.2).clamp(-2, 2))
    assert (tmp_path / "log").read_text().startswith(f"--tool racecheck --error-exitcode 9 {kernels.program}")


def test_what_a_sanitizer_reports(on_gpu, sanitized):
    kernels = sanitized('shift 4; "$@"; echo "========= Race reported at 0x70"; exit 9')
    with pytest.raises(on_gpu.harness.EmulatorError, match=r"exit code 9\ncall 0: bias_act\n=+ Race reported"):
        activate(kernels, torch.zeros(2, 3, 4, 4))


@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc")
def test_the_program_compiles_for_a_gpu(on_gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    monkeypatch.setattr(on_gpu.harness, "cache_folder", lambda: tmp_path)
    header = on_gpu.harness.CSRC / "kernels.h"
    defines = f'#define LAUNCHERS_HEADER "{header}"\n#define LAUNCHERS LAUNCHER(bias_act, BiasAct)\n'
    program = on_gpu.build([on_gpu.harness.CSRC / "bias_act.cu"], defines)
    (tmp_path / "calls").touch()
    subprocess.run([program, tmp_path / "calls", tmp_path / "results"], check=True)
    assert on_gpu.build([on_gpu.harness.CSRC / "bias_act.cu"], defines) == program
