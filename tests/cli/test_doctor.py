"""`sgan doctor` on machines that lack something, with stand-ins for compilers, devices and kernels."""

import importlib.machinery
import importlib.util
import json
import os
import platform
import sys
import types
from pathlib import Path

import pytest
import torch

from stylegan_cli import ops
from stylegan_cli.doctor import cases, checks, machine
from stylegan_cli.kernels import build, toolchain
from stylegan_cli.ops.dispatch import kernels_on
from stylegan_cli.version import __version__

# Prints its version; otherwise records the call, then writes its output or fails.
STAND_IN = """#!/bin/sh
case " $* " in *" --version "*) echo 'stand-in V13.0.88'; exit;; esac
echo "$*" >> '{folder}/calls'
for word; do [ "$last" = -o ] && out=$word; last=$word; done
{action}
echo library > "$out"
"""


@pytest.fixture
def machine_at(tmp_path, monkeypatch):
    """A machine without a GPU, with an empty cache and fake compilers: machine_at('exit 1') makes them fail."""
    for name in [name for name in os.environ if name.startswith(("SGAN_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setattr(build, "_loaded", False)
    for module in (build, toolchain, machine):
        monkeypatch.setattr(module, "driver_version", lambda: None)

    def install(action=""):
        for path in (tmp_path / "cuda" / "bin" / "nvcc", tmp_path / "c++"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STAND_IN.format(folder=tmp_path, action=action))
            path.chmod(0o755)

    install()
    return install


@pytest.fixture
def one_gpu(machine_at, monkeypatch):
    """A GPU that PyTorch seems to have."""
    properties = types.SimpleNamespace(name="Stand-in 9000", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    for module in (build, toolchain, machine):
        monkeypatch.setattr(module, "driver_version", lambda: (13, 1))


def rows(result):
    """The table as a dictionary; of several lines of one name, the last."""
    return {line[:14].strip(): line[14:] for line in result.stdout.partition("\n\n")[0].splitlines()}


def last(result):
    return result.stdout.splitlines()[-1]


# ------------------------------------------------------------------------------------ without a GPU


def test_no_gpu(sgan, machine_at, tmp_path):
    result = sgan("doctor", code=3)
    table = rows(result)
    assert list(table)[:13] == [
        *(
            "stylegan_cli",
            "platform",
            "Python",
            "PyTorch",
            "CUDA runtime",
            "CUDA driver",
            "GPU",
            "nvcc",
            "C++ compiler",
            "ninja",
            "cache",
        ),
        *("settings", "OpenMP"),
    ]
    assert table["PyTorch"] == torch.__version__ and table["GPU"] == table["CUDA driver"] == "none"
    assert table["nvcc"] == f"13.0.88 ({tmp_path}/cuda/bin/nvcc, from CUDA_HOME)"
    assert table["C++ compiler"].endswith(f"({tmp_path}/c++)")
    assert table["cache"] == str(tmp_path / "cache") and table["settings"] == f"SGAN_CACHE={tmp_path}/cache"
    assert table["kernels"].startswith("built in ") and table["kernels"].endswith("for sm_80, not loaded: no GPU")
    assert Path(table[""]).read_text() == "library\n"
    assert "no NVIDIA driver" in result.stdout and last(result).startswith("Everything works, but on the CPU")
    assert "kernel  " not in result.stdout and result.stderr == ""
    assert rows(sgan("doctor", code=3))["kernels"].startswith("built before")


def test_json(sgan, machine_at, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "9.0a,80")
    result = sgan("doctor", "--json", "-q", code=3)
    (line,) = result.stdout.splitlines()
    facts = json.loads(line)
    assert facts["verdict"] == "slower" and facts["exit_code"] == 3 and facts["checks"] == []
    assert facts["machine"]["nvcc"]["version"] == [13, 0, 88] and facts["machine"]["gpus"] == []
    assert facts["build"]["architectures"] == ["80", "90a"] and Path(facts["build"]["library"]).is_file()
    assert [item["what"] for item in facts["todo"]] == ["This machine has no NVIDIA driver."]
    assert facts["machine"]["version"] == __version__ and facts["machine"]["platform"] == platform.platform()
    assert facts["machine"]["nvcc"]["found"] == "CUDA_HOME" and facts["machine"]["hinders_building"] == []
    assert facts["machine"]["cores"] >= 1 and facts["machine"]["openmp"]["OMP_NUM_THREADS"] == "1"


def test_bad_number_of_threads(sgan, machine_at, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "two")
    result = sgan("doctor", "--no-build", code=3)
    assert "OMP_NUM_THREADS='two' is not a number of threads. Set it to" in result.stdout.partition("To do:")[2]
    assert last(result) == "Other commands do not start until OMP_NUM_THREADS is a number of threads."


def test_missing_compilers(sgan, machine_at, tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CXX"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setitem(sys.modules, "ninja", None)
    nvidia = types.ModuleType("nvidia")
    nvidia.__spec__ = importlib.machinery.ModuleSpec("nvidia", None, is_package=True)
    monkeypatch.setitem(sys.modules, "nvidia", nvidia)
    result = sgan("doctor", code=3)
    table = rows(result)
    assert {table[name] for name in ("nvcc", "C++ compiler", "ninja", "kernels")} == {"none"}
    for todo in ("stylegan-cli[cuda]", "apt install g++", "pip install ninja"):
        assert todo in result.stdout.partition("To do:")[2]


def test_failed_build(sgan, machine_at, tmp_path):
    machine_at("echo 'a.cu(1): error: it is broken'; exit 1")
    for _ in range(2):
        result = sgan("doctor", code=3)
        calls = (tmp_path / "calls").read_text()
        (log,) = (tmp_path / "cache" / "kernels").glob("*/build.log")
        assert rows(result)["kernels"] == "none"
        assert f"it is broken (log: {log})." in result.stdout and "sgan doctor" in result.stdout
    machine_at()
    assert rows(sgan("doctor", code=3))["kernels"].startswith("built in ")  # although the failure is cached
    assert len((tmp_path / "calls").read_text()) > len(calls)


def test_no_build(sgan, machine_at, tmp_path):
    result = sgan("doctor", "--no-build", code=3)
    assert rows(result)["kernels"] == "none" and "not built yet. Run `sgan doctor` to build them." in result.stdout
    assert not (tmp_path / "calls").exists()
    sgan("doctor", code=3)
    assert rows(sgan("doctor", "--no-build", code=3))["kernels"].startswith("built before")


def test_unknown_architecture(sgan, machine_at, monkeypatch):
    monkeypatch.setenv("SGAN_CUDA_ARCH", "fast")
    result = sgan("doctor", code=3)
    assert result.stdout.count("'fast' is not a supported GPU architecture") == 1 and "some of 80, " in result.stdout


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("reference", "prevents the use of the CUDA kernels"),
        ("cuda", "need a GPU"),
        ("fused", "need a GPU"),
        ("fast", "is not valid"),
    ],
)
def test_settings_that_prevent_the_kernels(sgan, machine_at, monkeypatch, value, problem):
    monkeypatch.setenv("SGAN_KERNELS", value)
    result = sgan("doctor", "--no-build", code=3)
    assert f"SGAN_KERNELS={value}" in rows(result)["settings"] and problem in result.stdout.partition("To do:")[2]


@pytest.mark.parametrize(
    ("runtime", "driver", "problem", "todo"),
    [
        (None, None, "no NVIDIA driver", "its driver"),
        (None, (12, 8), "built without CUDA", "for CUDA 12"),
        ("13.0", (12, 8), "supports CUDA 12.8 at most", "Update the driver"),
        ("12.8", (13, 0), "PyTorch sees no GPU", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_reason_for_missing_gpu(sgan, machine_at, monkeypatch, runtime, driver, problem, todo):
    monkeypatch.setattr(torch.version, "cuda", runtime)
    monkeypatch.setattr(machine, "driver_version", lambda: driver)
    text = sgan("doctor", "--no-build", code=3).stdout.partition("To do:")[2]
    assert problem in text and todo in text


# --------------------------------------------------------------------------------------- with a GPU


def test_kernels_that_do_not_load(sgan, one_gpu):
    result = sgan("doctor", code=3)
    table = rows(result)
    assert table["GPU 0"] == "Stand-in 9000, sm_90, 80 GiB" and table["CUDA driver"] == "supports CUDA 13.1"
    assert table["CUDA runtime"] == "13.0 (PyTorch's)" and "for sm_90a, cannot be loaded" in table["kernels"]
    assert "The CUDA kernels were built but do not load" in result.stdout and "NVIDIA driver" not in result.stdout
    assert last(result) == "Everything works, but slower than it could: the CUDA kernels are not available."


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_real_gpu(sgan):
    facts = json.loads(sgan("doctor", "--json").stdout)
    assert facts["verdict"] == "full speed" and len(facts["checks"]) == checks.NUM_CHECKS
    assert all(check["agrees"] and check["speedup"] > 0 for check in facts["checks"])


# ------------------------------------------------------------------------------ the kernels, emulated


@pytest.fixture(scope="module")
def emulated():
    path = Path(__file__).parents[1] / "emulator" / "harness.py"
    spec = importlib.util.spec_from_file_location("emulator_harness", path)
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    if reason := harness.missing():
        pytest.skip(reason)
    torch.ops.load_library(harness.build_library())


@pytest.fixture
def kernels(emulated, one_gpu, monkeypatch):
    """A machine whose "GPU" is the CPU: kernels are built, loaded and run."""
    monkeypatch.setattr(build, "load", lambda: None)
    monkeypatch.setattr(checks, "SIZE", (1, 8, 5, 6))
    with kernels_on("cpu"):
        yield


def module(name):
    return sys.modules[f"stylegan_cli.ops.{name}"]  # ops/__init__.py has functions of these names


def test_kernels_that_agree(sgan, kernels, monkeypatch):
    fused, paths = [], module("modulated_conv2d")._IMPLEMENTATIONS
    real = paths["fused"]
    monkeypatch.setitem(paths, "fused", lambda layer: fused.append(layer.x.dtype) or real(layer))
    blur, blurs = module("conv2d").activated_blur, []
    monkeypatch.setattr(module("conv2d"), "activated_blur", lambda *args: blurs.append(1) or blur(*args))
    result = sgan("doctor", code=0)
    assert "loaded" in rows(result)["kernels"] and last(result) == "Everything works: training runs at full speed."
    lines = [line for line in result.stdout.splitlines() if line.endswith(", ok")]
    whole = ("float32", "float16", "bfloat16")
    names = ("bias_act", "upfirdn2d", "add_skip", "minibatch_std", "filtered_lrelu", "modulated_conv2d")
    names += ("activated_blur", "layer_end")
    expected = {(kernel, dtype) for kernel in names for dtype in whole} | {("frozen_styles", "float32")}
    expected |= {(f"modulated_conv2d, {what}", dtype) for what in ("fused", "image") for dtype in whole[1:]}
    assert {(line[:25].strip(), line[25:35].strip()) for line in lines} == expected
    assert len(lines) == checks.NUM_CHECKS == 52 and all(" x   " in line for line in lines)
    assert set(fused) == {torch.float16, torch.bfloat16} and blurs
    assert "To do" not in result.stdout and ops.dispatch.current_implementation() == "auto"


def test_every_check_can_fail(kernels):
    """Where what is compared were almost zero, any error would be allowed."""
    found = {(check.kernel, check.dtype, check.what): check.allowed for check in checks.check_kernels()}
    assert len(found) == checks.NUM_CHECKS and not {name: x for name, x in found.items() if not 0 < x < 0.05}


@pytest.fixture
def plant(kernels, monkeypatch):
    """Apply a function to the results of the bias kernel, and check that kernel only: plant(function)."""
    monkeypatch.setattr(checks, "CASES", checks.CASES[:1])
    paths, right = module("bias_act")._IMPLEMENTATIONS, module("bias_act")._IMPLEMENTATIONS["cuda"]

    def put(mistake):
        monkeypatch.setitem(paths, "cuda", lambda *args: mistake(right(*args)))

    return put


@pytest.mark.parametrize("setting", [None, "reference"])
def test_wrong_kernel(sgan, plant, monkeypatch, setting):
    if setting:
        monkeypatch.setenv("SGAN_KERNELS", setting)  # must not make it compare the reference with itself
    plant(lambda y: y * 1.05)
    result = sgan("doctor", code=1)
    assert sum(line.endswith("WRONG") for line in result.stdout.splitlines()) == 6
    assert "Wrong results: bias_act." in last(result) and os.environ.get("SGAN_KERNELS") == setting


@pytest.mark.parametrize(
    ("kernel", "op"), [("layer_end", "layer_end"), ("modulated_conv2d, image", "modulated_conv2d_image")]
)
@pytest.mark.parametrize("result", [0, 1], ids=["features", "image"])
def test_wrong_kernels_of_frozen_networks(sgan, kernels, monkeypatch, kernel, op, result):
    monkeypatch.setattr(checks, "CASES", [case for case in checks.CASES if case.kernel == kernel])
    right = getattr(cases, op)
    monkeypatch.setattr(cases, op, lambda *args: [y * (1.05 if i == result else 1) for i, y in enumerate(right(*args))])
    assert f"Wrong results: {kernel}." in last(sgan("doctor", code=1))


def test_wrong_gradient(sgan, plant):
    plant(lambda y: y + 0.05 * (y - y.detach()))
    facts = json.loads(sgan("doctor", "--json", code=1).stdout)
    assert {check["what"] for check in facts["checks"] if not check["agrees"]} == {"gradients"}
    assert facts["verdict"] == "wrong" and facts["exit_code"] == 1


@pytest.mark.parametrize("mistake", ["raise", "nan"])
def test_failing_kernel(sgan, plant, mistake):
    def fail(y):
        if mistake == "raise":
            raise RuntimeError("sgan::bias_act: no kernel image\nis available")
        return y * float("nan")

    plant(fail)
    messages = {
        "raise": "FAILS: sgan::bias_act: no kernel image is available",
        "nan": "FAILS: the result is not finite",
    }
    assert sgan("doctor", code=1).stdout.count(messages[mistake]) == 6
    assert all(check["error"] is None for check in json.loads(sgan("doctor", "--json", code=1).stdout)["checks"])


@pytest.mark.parametrize(("setting", "code"), [("reference", 3), ("composite", 3), ("cuda", 0), ("fused", 0)])
def test_settings_with_kernels_that_agree(sgan, plant, monkeypatch, setting, code):
    monkeypatch.setenv("SGAN_KERNELS", setting)
    result = sgan("doctor", code=code)
    assert ("SGAN_KERNELS" in last(result)) == (code == 3) and result.stdout.count(", ok") == 6
