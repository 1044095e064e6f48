"""Every kernel compiles with nvcc, in no more registers than recorded; kernels that networks use do not spill."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stylegan_cli.kernels.toolchain import find_nvcc

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("registers.json")  # SGAN_RECORD=1 pytest tests/test_csrc.py rewrites it
KERNELS = sorted((ROOT / "csrc").glob("*.cu"))
SLACK = 8  # additional registers that another release of ptxas can need

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc")


def compile_for(kernel: Path, arch: str, folder: Path) -> dict[str, list[int]]:
    """{name of the kernel: [registers, spilled bytes]}"""
    code = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    nvcc = [find_nvcc().path, "-std=c++17", "-O3", "-Xptxas=-v", code, "-c", kernel, "-o", folder / "out.o"]
    done = subprocess.run([*map(str, nvcc)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    usage = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.S,
    )
    return {demangle(name): [int(registers), int(stores) + int(loads)] for name, stores, loads, registers in usage}


def demangle(name: str) -> str:
    if not shutil.which("c++filt"):
        pytest.skip("no c++filt")
    name = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout
    return re.sub(r"sgan::|\(anonymous namespace\)::|^void |\(.*\)$|\s", "", name.partition(">(")[0] + ">")


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda p: p.stem)
def test_registers_and_spills(kernel, arch, tmp_path):
    compiled = compile_for(kernel, arch, tmp_path)
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if os.environ.get("SGAN_RECORD"):
        table.setdefault(kernel.stem, {})[arch] = compiled
        lines = json.dumps(table, indent=1, sort_keys=True)
        TABLE.write_text(re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", lines) + "\n")
    recorded = table[kernel.stem][arch]
    assert compiled.keys() == recorded.keys()
    for name, (registers, spilled) in compiled.items():
        assert registers <= recorded[name][0] + SLACK, name
        assert spilled == 0 or "general" in name, name  # no network uses the general kernel


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["86", "89", "100", "120"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda p: p.stem)
def test_compiles_for_other_architectures(kernel, arch, tmp_path):
    compiled = compile_for(kernel, arch, tmp_path)
    assert compiled and all(spilled == 0 or "general" in name for name, (_, spilled) in compiled.items())
