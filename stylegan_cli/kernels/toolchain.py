"""The tools that compile the CUDA kernels (nvcc, a C++ compiler, ninja): where they are, and what is missing."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SganError

_INSTALL = "Run pip install 'stylegan-cli[cuda]', or install a CUDA toolkit and set PATH or CUDA_HOME."

# Architecture -> the first nvcc release that supports it.
_FIRST_NVCC = {
    "80": (11, 0),
    "86": (11, 1),
    "87": (11, 4),
    "88": (13, 0),
    "89": (11, 8),
    "90": (11, 8),
    "90a": (12, 0),
    "100": (12, 8),
    "103": (12, 9),
    "110": (13, 0),
    "120": (12, 8),
    "121": (12, 9),
}
_NEWEST = "120"  # that the kernels are tuned for; later devices compile its PTX themselves

# Files that nvcc runs or includes -> the pip package that contains them.
_REQUIRED_FILES = {
    "nvvm/bin/cicc": "nvidia-nvvm",
    "include/crt/host_config.h": "nvidia-cuda-crt",
    "include/cuda_runtime.h": "nvidia-cuda-runtime",
    "lib/libcudart_static.a": "nvidia-cuda-runtime",
    "include/nv/target": "nvidia-cuda-cccl",
}


class BuildError(SganError, RuntimeError):
    """The kernels are not available. `log` is the file with the compilers' output, if any was started."""

    def __init__(
        self,
        message: str,  # one sentence; it contains the path of the log, if there is one
        hint: str | None = None,  # how to fix it
        log: Path | None = None,
    ):
        super().__init__(message, hint)
        self.log = log


@dataclass(frozen=True)
class Nvcc:
    """A working CUDA compiler."""

    path: Path
    version: tuple[int, ...]  # (13, 0, 88)
    source: str  # 'CUDA_HOME', 'CUDA_PATH', 'PATH' or 'pip'

    @property
    def home(self) -> Path:
        # Follow links and scripts to the toolkit. Files from pip can be links out of the folder that they share.
        return (self.path if self.source == "pip" else _behind_script(self.path.resolve())).parents[1]

    @property
    def includes(self) -> tuple[Path, ...]:
        """Existing folders with CUDA headers, for other compilers."""
        return tuple(filter(Path.is_dir, (self.home / "include", self.home / "include" / "cccl")))

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Library folders that nvcc does not search by default: pip uses lib where toolkits have lib64."""
        return (self.home / "lib",) if self.source == "pip" else ()

    def __str__(self) -> str:
        return f"nvcc {dotted(self.version[:2])} ({self.path})"


@dataclass(frozen=True)
class HostCompiler:
    """The C++ compiler that nvcc runs and that compiles the PyTorch binding."""

    path: Path
    version: str  # first line of the output of --version
    source: str  # 'CXX' or 'PATH'


def dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def architectures() -> list[str]:
    """The architectures to build for, as nvcc names them, lowest first: ["80", "90a"].

    They come from SGAN_CUDA_ARCH ("80,90a", "8.0;9.0a"), else from the CUDA devices that PyTorch sees; otherwise empty.
    Raises BuildError for an unsupported architecture.
    """
    if setting := os.environ.get("SGAN_CUDA_ARCH", "").strip():
        return normalize_architectures(re.split(r"[\s,;]+", setting))
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return []
    devices = range(torch.cuda.device_count())
    return normalize_architectures(_architecture_for(*torch.cuda.get_device_capability(i)) for i in devices)


def normalize_architectures(names: Iterable[str]) -> list[str]:
    """Each architecture once, lowest first, without dots. Raises BuildError for an unsupported one."""
    numbers = {}
    for name in names:
        digits = re.fullmatch(r"(\d+)\.?(\d)(a?)", name)
        if digits is None or digits[1] + digits[2] not in _FIRST_NVCC:
            raise BuildError(
                f"{name!r} is not a supported GPU architecture: the kernels need sm_80 (Ampere) or newer.",
                hint=f"Set SGAN_CUDA_ARCH to some of {', '.join(_FIRST_NVCC)}.",
            )
        numbers["".join(digits.groups())] = int(digits[1] + digits[2])
    return sorted(numbers, key=lambda name: (numbers[name], name))


def _architecture_for(major: int, minor: int) -> str:
    """The architecture to compile for a device: its own if that is faster, else the first of its family."""
    families = {9: "90a", 10: "100", 12: "120"}
    return families.get(major, _NEWEST if major > 12 else f"{major}{minor}")


def find_nvcc(
    targets: Sequence[str] = (),  # architectures that it should support
) -> Nvcc | None:
    """The first suitable nvcc in CUDA_HOME, CUDA_PATH, PATH and the pip packages; if none is suitable, the first."""
    candidates = list(_all_nvccs())
    suitable = (nvcc for nvcc in candidates if nvcc_problem(nvcc, targets) is None)
    return next(suitable, candidates[0] if candidates else None)


def _all_nvccs() -> Iterator[Nvcc]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            yield from _nvcc(Path(os.environ[name], "bin", "nvcc"), name)
    if path := shutil.which("nvcc"):
        yield from _nvcc(Path(path), "PATH")
    spec = importlib.util.find_spec("nvidia")  # a namespace package, shared by many wheels
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True):
            yield from _nvcc(path, "pip")


def _nvcc(path: Path, source: str) -> Iterator[Nvcc]:
    """The compiler at this path, if it works."""
    version = re.search(r"\bV(\d+)\.(\d+)\.(\d+)", _output_of(path, "--version"))
    if version is not None:
        yield Nvcc(path, tuple(map(int, version.groups())), source)


@functools.cache
def _behind_script(path: Path) -> Path:
    """The compiler that a script starts, which says where it is; any other file itself."""
    if not path.is_file() or path.read_bytes()[:2] != b"#!":
        return path
    found = re.search(
        r"^#\$ _HERE_=(.+)$", _output_of(path, "--dryrun", "-x", "cu", "-c", os.devnull, errors=True), re.M
    )
    return Path(found[1], "nvcc") if found else path


def nvcc_problem(nvcc: Nvcc, targets: Sequence[str]) -> tuple[str, str] | None:
    """Why this compiler is not suitable for these architectures on this machine, and how to fix it; None if it is."""
    for name, package in _REQUIRED_FILES.items() if nvcc.source == "pip" else ():
        if not (nvcc.home / name).exists():
            return f"{nvcc} lacks the pip package {package}.", _INSTALL
    for name in targets:
        first = _FIRST_NVCC.get(name) or _FIRST_NVCC[name.rstrip("a")]
        if nvcc.version < first:
            return f"{nvcc} is too old for sm_{name}, which needs {dotted(first)}.", _INSTALL
    driver = driver_version()
    if driver and driver[0] < nvcc.version[0]:  # within a major release, older drivers run newer code
        problem = f"{nvcc} is too new: the driver of this machine supports CUDA {dotted(driver)} at most."
        return problem, f"Update the driver, or set CUDA_HOME to a CUDA {driver[0]} toolkit."
    return None


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA version that this machine's driver supports, such as (12, 8); None without a driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def find_host_compiler() -> HostCompiler | None:
    """The compiler in CXX if that is set, else g++, c++ or clang++ from the PATH."""
    names = [("g++", "PATH"), ("c++", "PATH"), ("clang++", "PATH")]
    if words := os.environ.get("CXX", "").split():  # "ccache g++ -m64": nvcc accepts only a program
        programs = [word for word in words if not word.startswith("-")]
        names = [((programs or words)[-1], "CXX")]
    for name, source in names:
        if (path := shutil.which(name)) and (output := _output_of(path, "--version")):
            return HostCompiler(Path(path), output.splitlines()[0], source)
    return None


def find_ninja() -> Path | None:
    """Ninja from pip, else from the PATH."""
    try:
        import ninja
    except ImportError:
        path = None
    else:
        path = shutil.which("ninja", path=ninja.BIN_DIR)
    path = path or shutil.which("ninja")
    return Path(path) if path else None


def find_problems(
    targets: Sequence[str] = (),  # architectures to build for
) -> list[tuple[str, str]]:
    """Everything known to prevent a build, as pairs (problem, how to fix it)."""
    if not sys.platform.startswith("linux"):
        return [("The CUDA kernels can be built on Linux only.", "Everything works without them, but slower.")]
    problems = []
    nvcc = find_nvcc(targets)
    if nvcc is None:
        problems.append(("No nvcc found in CUDA_HOME, on the PATH, or in the pip packages.", _INSTALL))
    elif problem := nvcc_problem(nvcc, targets):
        problems.append(problem)
    if find_host_compiler() is None:
        if name := os.environ.get("CXX"):
            problems.append((f"CXX is {name}, which is not a C++ compiler.", "Set CXX to a g++, or unset it."))
        else:
            problems.append(("No C++ compiler found on the PATH.", "Install g++ (apt install g++), or set CXX."))
    if find_ninja() is None:
        problems.append(("No ninja found.", "Run pip install ninja."))
    return problems


def _output_of(
    path: str | Path,
    *arguments: str,
    errors: bool = False,  # its standard error instead
) -> str:
    """The standard output of a program; empty if it fails."""
    try:
        result = subprocess.run([str(path), *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (result.stderr if errors else result.stdout) if result.returncode == 0 else ""
