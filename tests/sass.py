"""Read what nvcc made of the kernels: registers, spills and shared memory from ptxas, instructions from cuobjdump.

`pip install nvidia-cuda-cuobjdump` brings cuobjdump if the toolkit has none. Without it, `instructions` is None.
"""

import functools
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stylegan_cli.kernels.toolchain import find_nvcc

ROOT = Path(__file__).resolve().parents[1]
KERNELS = sorted((ROOT / "csrc").glob("*.cu"))

HOT_ARCH = "90a"  # the architecture that budgets are for
# The kernels that networks spend their time in -> an instruction that its main loop must have.
HOT = {
    "bias_act_kernel<__half,true,0,Rays>": None,
    "bias_act_kernel<__half,true,1,Rays>": None,
    "bias_act_kernel<__half,false,0,Rays>": None,
    "add_skip_kernel<__half>": None,
    "upfirdn2d_strips_kernel<Vectors<__half,8,1,1,4>>": None,
    "upfirdn2d_strips_kernel<Vectors<__half,8,2,1,4>>": None,
    "upfirdn2d_strips_kernel<Vectors<__half,8,1,2,4>>": None,
    "upfirdn2d_strips_kernel<Planes<__half,8,1,1,4>>": None,
    "upfirdn2d_strips_kernel<Planes<__half,8,2,1,4>>": None,
    "upfirdn2d_strips_kernel<Planes<__half,8,1,2,4>>": None,
    "upfirdn2d_strips_kernel<ActivatedVectors<__half,8,1,1,4>>": None,
    "epilogue_kernel<__half,8,1>": None,
    "epilogue_kernel<__half,8,2>": None,
    "layer_end_kernel<__half,__half,8>": None,
    "layer_end_kernel<float,float,4>": None,
    "frozen_styles_kernel(FrozenStyles)>": None,
    "counter_kernel(CounterUniform,int)>": None,
    "weights_kernel<__half>": None,
    "scaled_sums_kernel<float,__half>": None,
    "scaled_sums_kernel<__half,float>": None,
    "minibatch_std_kernel<float,0>": None,
    "minibatch_std_kernel<float,1>": None,
    "minibatch_std_kernel<float,2>": None,
    "modulated_conv2d_kernel<Config<__half,3,128,4,true,1>>": "HMMA",
    "modulated_conv2d_kernel<Config<__half,3,64,2,true,1>>": "HMMA",
    "modulated_conv2d_kernel<Config<__half,3,32,1,true,2>>": "HMMA",
    "modulated_conv2d_kernel<Config<__half,1,8,1,true,1>>": "HMMA",
    "modulated_conv2d_wgmma_kernel<Config<__half,128,2,1>>": "HGMMA",
    "modulated_conv2d_wgmma_kernel<Config<__half,64,1,1>>": "HGMMA",
    "modulated_conv2d_wgmma_kernel<Config<__half,32,1,1>>": "HGMMA",
    "modulated_conv2d_wgmma_kernel<Config<__half,32,2,2>>": "HGMMA",
}


@dataclass(frozen=True)
class Instructions:
    whole: Counter[str]  # name without suffixes, such as HMMA -> how often it occurs
    loop: Counter[str]  # the same in the main loop: the shortest that uses tensor cores most, or else the longest


@dataclass(frozen=True)
class Usage:
    registers: int
    spilled: int  # bytes
    shared: int  # bytes, without what the launch adds
    instructions: Instructions | None

    def figures(self) -> dict[str, int]:
        found = {"registers": self.registers, "spilled bytes": self.spilled, "shared bytes": self.shared}
        if self.instructions:
            found |= {"instructions": self.instructions.whole.total(), "in the loop": self.instructions.loop.total()}
        return found


def compile_for(
    kernel: Path,  # a .cu file
    arch: str,  # such as '90a'
    folder: Path,  # for the object file
) -> dict[str, Usage]:
    """Compile a file. Returns what each kernel uses, by its name without namespaces and arguments."""
    code, out = f"-gencode=arch=compute_{arch},code=sm_{arch}", folder / f"{kernel.stem}.{arch}.o"
    nvcc = [find_nvcc().path, "-std=c++17", "-O3", "-Xptxas=-v", code, "-c", kernel, "-o", out]
    done = subprocess.run([*map(str, nvcc)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    assert "Potential Performance Loss" not in done.stderr, done.stderr  # wgmma made to wait, for example
    usage = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
        done.stderr,
        re.S,
    )
    listing = disassemble(out)
    return {
        demangle(name): Usage(int(registers), int(stores) + int(loads), int(shared or 0), listing.get(name))
        for name, stores, loads, registers, shared in usage
    }


@functools.cache
def cuobjdump() -> str | None:
    """The path of cuobjdump: beside nvcc, on the PATH, or from pip."""
    nvcc = find_nvcc()
    folders = [nvcc.home / "bin", *(Path(p, "nvidia") for p in sys.path)] if nvcc else []
    beside = [path for folder in folders for path in (folder / "cuobjdump", *folder.glob("cu*/bin/cuobjdump"))]
    return next((str(path) for path in beside if path.is_file()), shutil.which("cuobjdump"))


def disassemble(path: Path) -> dict[str, Instructions]:
    """The instructions of each kernel of an object file, by its mangled name; none without cuobjdump."""
    if cuobjdump() is None:
        return {}
    done = subprocess.run([cuobjdump(), "-sass", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    functions = re.split(r"\n\s+Function : (\w+)\n", done.stdout)[1:]
    return {name: read_instructions(text) for name, text in zip(functions[::2], functions[1::2], strict=True)}


def read_instructions(
    listing: str,  # lines such as "/*0a30*/  @P0 BRA 0x5c0 ;"
) -> Instructions:
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)(\S*)\s*([^;]*);", listing)
    code = [(int(address, 16), name, rest) for address, name, _, rest in lines if name != "NOP"]
    loops = []
    for address, name, rest in code:
        target = re.search(r"\b0x([0-9a-f]+)\s*$", rest.strip()) if name == "BRA" else None
        if target and int(target[1], 16) < address:
            loops.append((int(target[1], 16), address))
    bodies = [Counter(name for address, name, _ in code if first <= address <= last) for first, last in loops]
    main = max(bodies, key=_is_main, default=Counter())
    return Instructions(Counter(name for _, name, _ in code), main)


def _is_main(body: Counter[str]) -> tuple[int, int]:
    products = body["HGMMA"] or body["HMMA"]  # beside HGMMA, HMMA is a part of the end
    return products, -body.total() if products else body.total()


def demangle(name: str) -> str:
    assert shutil.which("c++filt"), "no c++filt"
    name = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout
    return re.sub(r"sgan::|\(anonymous namespace\)::|^void |\(.*\)$|\s", "", name.partition(">(")[0] + ">")
