"""Architectures, and the compilers that are found or missing."""

import sys

import pytest
import torch

from stylegan_cli.kernels import build, toolchain


def test_architectures_by_name(toolkit, monkeypatch, refused):
    for text, names in {"90a,80": ["80", "90a"], "8.0;9.0a 12.0": ["80", "90a", "120"], "80, 8.0": ["80"]}.items():
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        assert toolchain.architectures() == names
    for text in ("sm_90", "9.5", "80,fast", "8"):
        monkeypatch.setenv("SGAN_CUDA_ARCH", text)
        with refused("no GPU architecture") as e:
            toolchain.architectures()
        assert "SGAN_CUDA_ARCH" in e.value.hint


def test_architectures_of_the_devices(toolkit, monkeypatch, refused):
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
    with refused("61 is no GPU architecture"):
        toolchain.architectures()
    monkeypatch.setattr(torch.version, "cuda", None)  # a build for other makes of devices, which calls them cuda too
    assert toolchain.architectures() == []


def test_nothing_is_there(bare, refused):
    found = toolchain.missing(["90a"])
    assert [next(w for w in ("nvcc", "C++ compiler", "ninja") if w in what) for what, _ in found] == [
        "nvcc",
        "C++ compiler",
        "ninja",
    ]
    assert "stylegan-cli[cuda]" in found[0][1] and "g++" in found[1][1] and found[2][1] == "pip install ninja"
    with refused("no nvcc") as e:
        build.build(["90a"])
    assert e.value.hint == found[0][1] and e.value.log is None


def test_nothing_is_missing(toolkit):
    assert toolchain.missing(["90a"]) == []


def test_no_host_compiler(toolkit, bare, monkeypatch, refused):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    with refused("no C.. compiler") as e:
        build.build(["90a"])
    assert "g++" in e.value.hint
    monkeypatch.setenv("CXX", "/none/g++ -m64")
    with refused("CXX names /none/g"):
        build.build(["90a"])


def test_no_ninja(toolkit, bare, monkeypatch, refused):
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "cuda"))
    monkeypatch.setenv("CXX", f"ccache {toolkit.cxx} -m64")
    assert toolchain.find_host_compiler().path == toolkit.cxx
    with refused("no ninja") as e:
        build.build(["90a"])
    assert e.value.hint == "pip install ninja"
    toolkit.script(toolkit.folder / "bin" / "ninja")
    assert toolchain.find_ninja() == toolkit.folder / "bin" / "ninja"


def test_only_linux(toolkit, monkeypatch, refused):
    monkeypatch.setattr(sys, "platform", "win32")
    with refused("Linux only"):
        build.build(["90a"])


@pytest.mark.parametrize(
    "version, name, why",
    [
        ("12.6.1", "120", "is too old for sm_120, which needs 12.8"),
        ("11.8.0", "90a", "is too old for sm_90a, which needs 12.0"),
    ],
)
def test_an_nvcc_of_another_age(toolkit, version, name, why, refused):
    toolkit.install(version=version)
    with refused(f"nvcc {version[:4]}", why) as e:
        build.build([name])
    assert "CUDA" in e.value.hint and not toolkit.calls()
    toolkit.install(version="12.8.0")
    assert build.build([name]).exists()


def test_an_nvcc_newer_than_the_driver(toolkit, monkeypatch, refused):
    monkeypatch.setattr(toolchain, "driver_version", lambda: (12, 4))
    with refused("nvcc 13.0", "CUDA 12.4") as e:
        build.build(["90a"])
    assert "driver" in e.value.hint
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    nvcc = toolchain.find_nvcc(["90a"])
    assert nvcc.version == (12, 9, 1) and nvcc.found == "PATH"


def test_nvcc_is_looked_for_everywhere(toolkit, bare, monkeypatch):
    assert toolchain.find_nvcc() is None
    pip = bare / "cu13" / "bin" / "nvcc"
    toolkit.script(pip, "13.0.88")
    for part in toolchain._PARTS:
        (bare / "cu13" / part).parent.mkdir(parents=True, exist_ok=True)
        (bare / "cu13" / part).touch()
    nvcc = toolchain.find_nvcc(["90a"])
    assert (nvcc.path, nvcc.version, nvcc.found) == (pip, (13, 0, 88), "pip")
    assert nvcc.libraries == (bare / "cu13" / "lib",) and nvcc.includes == (bare / "cu13" / "include",)
    toolkit.script(toolkit.folder / "bin" / "nvcc", "12.9.1")
    assert toolchain.find_nvcc(["90a"]).found == "PATH"
    monkeypatch.setenv("CUDA_PATH", str(toolkit.folder / "cuda"))
    assert toolchain.find_nvcc(["90a"]).found == "CUDA_PATH"
    toolkit.script(toolkit.folder / "home" / "bin" / "nvcc", "11.5.0")
    monkeypatch.setenv("CUDA_HOME", str(toolkit.folder / "home"))
    assert toolchain.find_nvcc(["80"]).found == "CUDA_HOME"
    assert toolchain.find_nvcc(["90a"]).found == "CUDA_PATH"  # the first that is new enough
    pip.chmod(0o644)
    assert [n.found for n in toolchain._every_nvcc()] == ["CUDA_HOME", "CUDA_PATH", "PATH"]


@pytest.mark.parametrize("part", toolchain._PARTS)
def test_pip_packages_that_lack_one(toolkit, bare, part):
    toolkit.script(bare / "cu13" / "bin" / "nvcc")
    for other in set(toolchain._PARTS) - {part}:
        (bare / "cu13" / other).parent.mkdir(parents=True, exist_ok=True)
        (bare / "cu13" / other).touch()
    ((what, hint), *_) = toolchain.missing(["90a"])
    assert what.endswith(f"lacks the pip package {toolchain._PARTS[part]}.") and "stylegan-cli[cuda]" in hint


def test_sources_that_are_not_there(toolkit, refused):
    (toolkit.sources / "library.cpp").unlink()
    with refused("not in", str(toolkit.sources)):
        build.build(["90a"])
