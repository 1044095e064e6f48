"""The kernels' tests on a GPU, under compute-sanitizer: SGAN_SANITIZER=memcheck pytest tests/emulator/test_kernels.py

The program is the emulator's, compiled with nvcc. It contains no PyTorch, so that every access that the sanitizer
reports is ours, and each tensor is an allocation of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stylegan_cli.kernels import toolchain

spec = importlib.util.spec_from_file_location("emulator_harness", Path(__file__).with_name("harness.py"))
harness = importlib.util.module_from_spec(spec)
spec.loader.exec_module(harness)


class SanitizedKernels(harness.Emulator):
    """Like its base class, with every call on the GPU."""

    def __init__(self, tool: str):  # of compute-sanitizer, such as 'memcheck'
        header, sources = harness.CSRC / "kernels.h", sorted(harness.CSRC.glob("*.cu"))
        launchers, self.structs, self.enums = harness.parse_header(header.read_text())
        code = "".join(source.read_text() for source in sources)
        self.launchers = {name: args for name, args in launchers.items() if f" {name}(const {args}&" in code}
        table = " ".join(f"LAUNCHER({name}, {args})" for name, args in self.launchers.items())
        self.wrapper = [find_sanitizer(), "--tool", tool, "--error-exitcode", "9"]
        self.program = build(sources, f'#define LAUNCHERS_HEADER "{header}"\n#define LAUNCHERS {table}\n')


def find_sanitizer() -> str:
    """The path of compute-sanitizer: on the PATH, or beside nvcc."""
    nvcc, name = toolchain.find_nvcc(), "compute-sanitizer"
    path = shutil.which(name) or (nvcc and shutil.which(name, path=str(nvcc.home / "bin")))
    assert path, f"no {name}"
    return path


def build(
    sources: list[Path],
    defines: str,  # for the driver; nvcc splits those on its command line at commas
) -> Path:
    """The driver with the kernels, for the GPUs of this machine or SGAN_CUDA_ARCH. Built once for the same sources."""
    nvcc, targets = toolchain.find_nvcc(), toolchain.architectures()
    assert nvcc and targets, "nvcc and a GPU are needed"
    flags = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    flags += ["-std=c++17", "-O2", "-lineinfo", "-I", str(harness.CSRC)]
    driver = harness.HERE / "driver.cpp"
    files = [*sources, driver, *harness.CSRC.glob("*.h"), *harness.CSRC.glob("*.cuh")]
    key = hashlib.sha256(repr((str(nvcc), flags, defines, [path.read_text() for path in files])).encode()).hexdigest()
    program = harness.cache_folder() / f"{key[:16]}-on_gpu.out"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        Path(folder, "launchers.h").write_text(defines)

        def compile_one(source: Path) -> str:
            out, included = f"{folder}/{source.name}.o", ["-include", f"{folder}/launchers.h"]
            extra = included if source == driver else []
            run_nvcc(nvcc, *flags, *extra, "-x", "cu", "-c", str(source), "-o", out)
            return out

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, [*sources, driver]))
        run_nvcc(nvcc, *flags, "-cudart", "static", *objects, "-o", f"{folder}/program")
        Path(folder, "program").replace(program)
    return program


def run_nvcc(nvcc: toolchain.Nvcc, *arguments: str) -> None:
    folders = [f"-L{folder}" for folder in nvcc.libraries]
    done = subprocess.run([str(nvcc.path), *folders, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
