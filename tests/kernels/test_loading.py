"""Loading libraries that were built, or bundled with the package; one slow test uses the real compilers."""

import gc
import json
import shutil
import subprocess
import sys
import venv
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch

from stylegan_cli.kernels import build

ROOT = Path(__file__).parents[2]
REAL = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"  # a small library that loads


def test_load_happens_once(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    toolkit.link_copies_of(REAL)
    build.load()
    (path,) = toolkit.cache.glob("kernels/*/*.so")
    assert str(path) in torch.ops.loaded_libraries
    monkeypatch.setattr(build, "_load", None)
    build.load()


def test_a_failure_to_load_is_remembered(toolkit, monkeypatch, expect_error):
    monkeypatch.setattr(torch.version, "cuda", None)
    with expect_error("no CUDA device") as first:
        build.load()
    monkeypatch.setattr(build, "_load", None)
    with expect_error() as second:
        build.load()
    assert str(first.value) == str(second.value) and isinstance(first.value, RuntimeError)
    assert "SGAN_CUDA_ARCH" in first.value.hint


def test_a_remembered_failure_keeps_no_frame_alive(toolkit, monkeypatch, expect_error):
    """Otherwise every call that falls back would keep its tensors."""
    monkeypatch.setattr(torch.version, "cuda", None)

    def caller():
        x = torch.zeros(1)
        with expect_error("no CUDA device"):
            build.load()
        return weakref.ref(x)

    first, second = caller(), caller()
    gc.collect()
    assert first() is None and second() is None


def test_a_library_that_does_not_load_is_rebuilt_once(toolkit, monkeypatch, expect_error):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    with expect_error("do not load", "sgan_kernels.so"):  # "halfwhole" is not a library
        build.load()
    assert Counter(toolkit.outputs()) == dict.fromkeys(toolkit.parts, 2)
    monkeypatch.setattr(build, "_loaded", False)
    with expect_error("do not load"):
        build.load()
    assert len(toolkit.calls()) == 8  # remembered
    toolkit.link_copies_of(REAL)
    build.build(["90a"], retry=True)
    monkeypatch.setattr(build, "_loaded", False)
    build.load()


def test_a_library_of_another_system_is_replaced(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    path = build.build(["90a"])
    toolkit.link_copies_of(REAL)
    build.load()
    assert path.read_bytes() == REAL.read_bytes()


# Bundled libraries


def test_prebuilt(toolkit, monkeypatch):
    toolkit.link_copies_of(REAL)
    path = build.build_prebuilt()
    assert path.parent == build.PREBUILT and path.name == f"sgan_kernels_{build.source_hash()[:16]}.so"
    flags = "code=sm_120 -gencode arch=compute_120,code=compute_120"
    assert any(flags in call for call in toolkit.calls())  # ninja starts them in any order
    monkeypatch.setattr(build, "build", None)
    monkeypatch.setenv("SGAN_CUDA_ARCH", "8.6, 9.0a")
    build.load()
    assert str(path) in torch.ops.loaded_libraries


def test_when_the_bundled_library_is_not_used(toolkit, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "90a")
    path = build.build_prebuilt()
    assert build._find_prebuilt(["90a", "103", "121"]) == path
    monkeypatch.setattr(build, "driver_version", lambda: (12, 8))
    assert build._find_prebuilt(["90a"]) is None
    monkeypatch.setattr(build, "driver_version", lambda: (13, 1))
    assert build._find_prebuilt(["90a"]) == path
    toolkit.link_copies_of(REAL)  # the bundled one is text, which does not load
    build.load()
    (built,) = (p for p in toolkit.cache.glob("kernels/*/*.so") if p.read_bytes() == REAL.read_bytes())
    assert str(built) in torch.ops.loaded_libraries
    (toolkit.sources / "a.cu").write_text("// other\n")
    assert build._find_prebuilt(["90a"]) is None


def test_setup_build_kernels(toolkit, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "stylegan_cli", copy / "stylegan_cli", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    shutil.copytree(toolkit.sources, copy / "csrc")
    shutil.copy(ROOT / "setup.py", copy)
    toolkit.install(version="12.8.93")
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_kernels"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.parent == copy / "stylegan_cli" / "prebuilt" and path.read_text() == "halfwhole"
    metadata = json.loads(path.with_suffix(".json").read_text())
    assert metadata["architectures"] == list(build.PREBUILT_ARCHITECTURES) and metadata["nvcc"] == [12, 8, 93]
    assert path.name == f"sgan_kernels_{build.source_hash()[:16]}.so"


@pytest.mark.slow
def test_real_compilers_from_pip(tmp_path):
    """Build csrc/ with nvcc from pip in a fresh environment, where no other nvcc is visible."""
    if not (build.SOURCES / "library.cpp").is_file() or not shutil.which("g++", path="/usr/bin:/bin"):
        pytest.skip("no kernels, or no g++")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    names = [f"nvidia-{n}==13.0.*" for n in ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-runtime", "cuda-cccl")]
    done = subprocess.run([python, "-m", "pip", "install", "--no-deps", *names], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no registry: {done.stderr.strip().splitlines()[-1]}")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    here = [str(Path(m.__file__).parents[1]) for m in (torch, sys.modules["stylegan_cli"])]
    (site / "here.pth").write_text("\n".join(here))
    code = (
        "import stylegan_cli.ops; from stylegan_cli.kernels import build, toolchain; "  # the ops define the operators
        "print(toolchain.find_nvcc().source); build.load(); "
        "import torch; print(dir(torch.ops.sgan) and torch.ops.sgan.bias_act)"
    )
    env = {"PATH": "/usr/bin:/bin", "SGAN_CACHE": str(tmp_path / "cache"), "SGAN_CUDA_ARCH": "90a,120"}
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pip", "sgan.bias_act"]
