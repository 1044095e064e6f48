"""Architectures, and compilers that are found or missing."""

import sys
from pathlib import Path

import pytest
import torch

from stylegan_cli.kernels import build, toolchain


def test_architectures_by_name(toolkit, monkeypatch, expect_error):
    for text, names in {"90a,80": ["80", "90a"], "8.0;9.0a 12.0": ["80", "90a", "120"], "80, 8.0": ["80"]}.items():
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        assert toolchain.architectures() == names
    for text in ("sm_90", "9.5", "80,fast", "8"):
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        with expect_error("is not a supported GPU architecture") as e:
            toolchain.architectures()
        assert "SGAN_CUDA_ARCH" in e.value.hint


def test_architectures_of_the_devices(toolkit, monkeypatch, expect_error):
    devices = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: devices[i])
    assert toolchain.architectures() == []
    devices[:] = [(9, 0), (8, 6), (9, 0)]
    assert toolchain.architectures() == ["86", "90a"]
    devices[:] = [(10, 3), (12, 1), (11, 0)]
    assert toolchain.architectures() == ["100", "110", "120"]
    devices[:] = [(14, 2)]
    assert toolchain.architectures() == ["120"] and "code=compute_120" in " ".join(build._gencode(["120"]))
    devices[:] = [(6, 1)]
    with expect_error("'61' is not a supported GPU architecture"):
        toolchain.architectures()
    monkeypatch.setattr(torch.version, "cuda", None)  # ROCm builds call their devices cuda too
    assert toolchain.architectures() == []


def test_all_tools_missing(no_tools, expect_error):
    problems = toolchain.find_problems(["90a"])
    assert [next(w for w in ("nvcc", "C++ compiler", "ninja") if w in what) for what, _ in problems] == [
        "nvcc",
        "C++ compiler",
        "ninja",
    ]
    assert "stylegan-cli[cuda]" in problems[0][1] and "g++" in problems[1][1]
    assert problems[2][1] == "Run pip install ninja."
    with expect_error("No nvcc") as e:
        build.build(["90a"])
    assert e.value.hint == problems[0][1] and e.value.log is None


def test_no_tools_missing(toolkit):
    assert toolchain.find_problems(["90a"]) == []


def test_no_host_compiler(toolkit, no_tools, monkeypatch, expect_error):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    with expect_error("No C.. compiler") as e:
        build.build(["90a"])
    assert "g++" in e.value.hint
    monkeypatch.setenv("CXX", "/none/g++ -m64")
    with expect_error("CXX is /none/g"):
        build.build(["90a"])


def test_no_ninja(toolkit, no_tools, monkeypatch, expect_error):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    monkeypatch.setenv("CXX", f"ccache {toolkit.cxx} -m64")
    assert toolchain.find_host_compiler().path == toolkit.cxx
    with expect_error("No ninja") as e:
        build.build(["90a"])
    assert e.value.hint == "Run pip install ninja."
    toolkit.script(toolkit.folder / "bin" / "ninja")
    assert toolchain.find_ninja() == toolkit.folder / "bin" / "ninja"


def test_only_linux(toolkit, monkeypatch, expect_error):
    monkeypatch.setattr(sys, "platform", "win32")
    with expect_error("Linux only"):
        build.build(["90a"])


@pytest.mark.parametrize(
    "version, name, problem",
    [
        ("12.6.1", "120", "is too old for sm_120, which needs 12.8"),
        ("11.8.0", "90a", "is too old for sm_90a, which needs 12.0"),
    ],
)
def test_an_nvcc_that_is_too_old(toolkit, version, name, problem, expect_error):
    toolkit.install(version=version)
    with expect_error(f"nvcc {version[:4]}", problem) as e:
        build.build([name])
    assert "CUDA" in e.value.hint and not toolkit.calls()
    toolkit.install(version="12.8.0")
    assert build.build([name]).exists()


def test_an_nvcc_newer_than_the_driver(toolkit, monkeypatch, expect_error):
    monkeypatch.setattr(toolchain, "driver_version", lambda: (12, 4))
    with expect_error("nvcc 13.0", "CUDA 12.4") as e:
        build.build(["90a"])
    assert "driver" in e.value.hint
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    nvcc = toolchain.find_nvcc(["90a"])
    assert nvcc.version == (12, 9, 1) and nvcc.source == "PATH"


def test_nvcc_search_order(toolkit, no_tools, monkeypatch):
    assert toolchain.find_nvcc() is None
    pip = no_tools / "cu13" / "bin" / "nvcc"
    toolkit.script(pip, "13.0.88")
    for part in toolchain._REQUIRED_FILES:
        (no_tools / "cu13" / part).parent.mkdir(parents=True, exist_ok=True)
        (no_tools / "cu13" / part).touch()
    nvcc = toolchain.find_nvcc(["90a"])
    assert (nvcc.path, nvcc.version, nvcc.source) == (pip, (13, 0, 88), "pip")
    assert nvcc.libraries == (no_tools / "cu13" / "lib",) and nvcc.includes == (no_tools / "cu13" / "include",)
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    assert toolchain.find_nvcc(["90a"]).source == "PATH"
    monkeypatch.setenv("CUDA_PATH", str(toolkit.folder / "cuda"))
    assert toolchain.find_nvcc(["90a"]).source == "CUDA_PATH"
    toolkit.script(toolkit.folder / "home" / "bin" / "nvcc", "11.5.0")
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "home"))
    assert toolchain.find_nvcc(["80"]).source == "CUDA_HOME"
    assert toolchain.find_nvcc(["90a"]).source == "CUDA_PATH"  # the first one that is new enough
    pip.chmod(0o644)
    assert [n.source for n in toolchain._all_nvccs()] == ["CUDA_HOME", "CUDA_PATH", "PATH"]


def test_an_nvcc_that_is_a_script(toolkit, tmp_path):
    """Its home is that of the compiler that it starts."""
    path = toolkit.folder / "bin" / "nvcc"
    toolkit.script(path, "13.0.88", action="true")
    assert toolchain.Nvcc(path, (13, 0, 88), "PATH").home == toolkit.folder
    wrapper = tmp_path / "wrapper" / "bin" / "nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text("#!/bin/sh\necho '#$ _HERE_=/opt/cuda-13.0/bin' >&2\n")
    wrapper.chmod(0o755)
    assert toolchain.Nvcc(wrapper, (13, 0, 88), "PATH").home == Path("/opt/cuda-13.0")


@pytest.mark.parametrize("part", toolchain._REQUIRED_FILES)
def test_a_missing_pip_package(toolkit, no_tools, part):
    toolkit.script(no_tools / "cu13" / "bin" / "nvcc")
    for other in set(toolchain._REQUIRED_FILES) - {part}:
        (no_tools / "cu13" / other).parent.mkdir(parents=True, exist_ok=True)
        (no_tools / "cu13" / other).touch()
    ((what, hint), *_) = toolchain.find_problems(["90a"])
    assert what.endswith(f"lacks the pip package {toolchain._REQUIRED_FILES[part]}.") and "stylegan-cli[cuda]" in hint


def test_missing_sources(toolkit, expect_error):
    (toolkit.sources / "library.cpp").unlink()
    with expect_error("missing from", str(toolkit.sources)):
        build.build(["90a"])
