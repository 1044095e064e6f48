"""Every kernel compiles with nvcc, in no more registers than recorded. Those that networks use do not spill, and those
that take most of their time stay within their budgets."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from stylegan_cli.kernels.toolchain import find_nvcc

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported without it

import budgets
import sass

TABLE = Path(__file__).with_name("registers.json")  # SGAN_RECORD=1 pytest tests/test_csrc.py rewrites it
SLACK = 8  # additional registers that another release of ptxas can need
needs_nvcc = pytest.mark.skipif(find_nvcc() is None or not shutil.which("c++filt"), reason="no nvcc or c++filt")
each_kernel = pytest.mark.parametrize("kernel", sass.KERNELS, ids=lambda p: p.stem)


@needs_nvcc
@pytest.mark.parametrize("arch", ["80", "90a"])
@each_kernel
def test_registers_and_spills(kernel, arch, tmp_path):
    compiled = sass.compile_for(kernel, arch, tmp_path)
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if os.environ.get("SGAN_RECORD"):
        table.setdefault(kernel.stem, {})[arch] = {name: [u.registers, u.spilled] for name, u in compiled.items()}
        lines = json.dumps(table, indent=1, sort_keys=True)
        TABLE.write_text(re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", lines) + "\n")
    recorded = table[kernel.stem][arch]
    assert compiled.keys() == recorded.keys()
    for name, usage in compiled.items():
        assert usage.registers <= recorded[name][0] + SLACK, name
        assert usage.spilled == 0 or "general" in name, name  # no network uses the general kernel
    if arch == sass.HOT_ARCH:
        check_hot({name: usage for name, usage in compiled.items() if name in sass.HOT})
        assert compiled.keys() & sass.HOT.keys() or kernel.stem == "filtered_lrelu"


def check_hot(compiled):
    for name, usage in compiled.items():
        assert not budgets.excesses(f"kernel {name}", usage.figures(), budgets.load_table())
        if usage.instructions:
            assert not usage.instructions.whole.keys() & {"LDL", "STL"}, f"{name} uses local memory"
            assert sass.HOT[name] is None or sass.HOT[name] in usage.instructions.loop, name


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["86", "89", "100", "120"])
@each_kernel
def test_compiles_for_other_architectures(kernel, arch, tmp_path):
    compiled = sass.compile_for(kernel, arch, tmp_path)
    assert compiled and all(usage.spilled == 0 or "general" in name for name, usage in compiled.items())


def test_main_loop():
    """The shortest loop with the most tensor-core instructions, or else the longest."""
    listing = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;      /* 0x00000a00ff017b82 */
        /*0010*/                   HMMA.16816.F32 R4, R8, R2, R4 ;
        /*0020*/              @!P0 BRA 0x10 ;
        /*0030*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*0040*/                   IADD3 R0, R0, 0x1, RZ ;
        /*0050*/               @P1 BRA P2, 0x10 ;
        /*0060*/                   EXIT ;
        /*0070*/                   BRA 0x70;
        /*0080*/                   NOP;
    """
    found = sass.read_instructions(listing)
    assert found.whole == Counter(LDC=1, HMMA=1, BRA=3, STG=1, IADD3=1, EXIT=1)
    assert found.loop == Counter(HMMA=1, BRA=1)
    assert sass.read_instructions(listing.replace("HMMA", "FFMA")).loop.total() == 5


def test_a_kernel_with_local_memory_is_not_hot():
    usage = sass.Usage(16, 0, 0, sass.Instructions(Counter(LDL=1), Counter()))
    name = next(iter(sass.HOT))
    with pytest.raises(AssertionError, match="local memory"):
        check_hot({name: usage})
    with pytest.raises(AssertionError, match="more than the budget"):
        check_hot({name: sass.Usage(255, 0, 0, None)})
