"""What compiles the CUDA kernels: nvcc, the host's C++ compiler, ninja; where they are, and what is missing."""

from __future__ import annotations

import ctypes
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

_INSTALL = "pip install 'stylegan-cli[cuda]' brings one; a CUDA toolkit on the PATH or in CUDA_HOME does as well."

# Architecture -> the first nvcc that makes it, and the last major release that does.
_MAKERS = {
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
_NEWEST = "120"  # of those the kernels are tuned for; later devices compile its PTX for themselves

# What nvcc calls or includes, and the pip package that brings it.
_PARTS = {
    "nvvm/bin/cicc": "nvidia-nvvm",
    "include/crt/host_config.h": "nvidia-cuda-crt",
    "include/cuda_runtime.h": "nvidia-cuda-runtime",
    "lib/libcudart_static.a": "nvidia-cuda-runtime",
    "include/nv/target": "nvidia-cuda-cccl",
}


class BuildError(SganError, RuntimeError):
    """The kernels cannot be had. ``log`` is what the compilers said, where one of them was started."""

    def __init__(
        self,
        message: str,  # one sentence; with a log, its path stands in it
        hint: str | None = None,  # what to type or to change
        log: Path | None = None,
    ):
        super().__init__(message, hint)
        self.log = log


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler that answers."""

    path: Path
    version: tuple[int, ...]  # (13, 0, 88)
    found: str  # 'CUDA_HOME', 'CUDA_PATH', 'PATH' or 'pip'

    @property
    def home(self) -> Path:
        # A link on the PATH leads to the toolkit; pip's files may be links themselves, out of the folder they share.
        return (self.path if self.found == "pip" else self.path.resolve()).parents[1]

    @property
    def includes(self) -> tuple[Path, ...]:
        """Folders of the CUDA headers, for other compilers; none where they are not beside it."""
        return tuple(filter(Path.is_dir, (self.home / "include", self.home / "include" / "cccl")))

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders of libraries that it does not look into by itself: pip has lib where toolkits have lib64."""
        return (self.home / "lib",) if self.found == "pip" else ()

    def __str__(self) -> str:
        return f"nvcc {dotted(self.version[:2])} ({self.path})"


@dataclass(frozen=True)
class HostCompiler:
    """The C++ compiler that nvcc calls and that compiles the binding to PyTorch."""

    path: Path
    version: str  # the first line it says of itself
    found: str  # 'CXX' or 'PATH'


def dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def architectures() -> list[str]:
    """What to build for, as nvcc names it, lowest first: ["80", "90a"].

    SGAN_CUDA_ARCH chooses ("80,90a", "8.0;9.0a"), else the CUDA devices that PyTorch sees; without either: none.
    Raises BuildError for what no kernel is made for.
    """
    if chosen := os.environ.get("SGAN_CUDA_ARCH", "").strip():
        return in_order(re.split(r"[\s,;]+", chosen))
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return []
    return in_order(_made_for(*torch.cuda.get_device_capability(i)) for i in range(torch.cuda.device_count()))


def in_order(names: Iterable[str]) -> list[str]:
    """Each architecture once, lowest first, without dots. Raises BuildError for an unknown one."""
    known = {}
    for name in names:
        digits = re.fullmatch(r"(\d+)\.?(\d)(a?)", name)
        if digits is None or digits[1] + digits[2] not in _MAKERS:
            raise BuildError(
                f"{name} is no GPU architecture that the kernels can be built for: they need sm_80 (Ampere) or newer.",
                hint=f"Known are {', '.join(_MAKERS)}; SGAN_CUDA_ARCH chooses.",
            )
        known["".join(digits.groups())] = int(digits[1] + digits[2])
    return sorted(known, key=lambda name: (known[name], name))


def _made_for(major: int, minor: int) -> str:
    """The architecture for a device: its own where it gains by that, else the first of its family."""
    families = {9: "90a", 10: "100", 12: "120"}
    return families.get(major, _NEWEST if major > 12 else f"{major}{minor}")


def find_nvcc(
    wanted: Sequence[str] = (),  # architectures it should be able to make
) -> Nvcc | None:
    """The first nvcc of CUDA_HOME, CUDA_PATH, the PATH and the pip packages that can do it; else the first of all."""
    found = list(_every_nvcc())
    return next((nvcc for nvcc in found if objection(nvcc, wanted) is None), found[0] if found else None)


def _every_nvcc() -> Iterator[Nvcc]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            yield from _nvcc(Path(os.environ[name], "bin", "nvcc"), name)
    if path := shutil.which("nvcc"):
        yield from _nvcc(Path(path), "PATH")
    spec = importlib.util.find_spec("nvidia")  # no package of its own: a folder that many wheels share
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True):
            yield from _nvcc(path, "pip")


def _nvcc(path: Path, found: str) -> Iterator[Nvcc]:
    """The compiler at this place, if it is one that runs."""
    version = re.search(r"\bV(\d+)\.(\d+)\.(\d+)", _said(path, "--version"))
    if version is not None:
        yield Nvcc(path, tuple(map(int, version.groups())), found)


def objection(nvcc: Nvcc, wanted: Sequence[str]) -> tuple[str, str] | None:
    """Why this compiler will not do for these architectures on this machine, and what to do; None: it will."""
    for part, package in _PARTS.items() if nvcc.found == "pip" else ():
        if not (nvcc.home / part).exists():
            return f"{nvcc} lacks the pip package {package}.", _INSTALL
    for name in wanted:
        first = _MAKERS.get(name) or _MAKERS[name.rstrip("a")]
        if nvcc.version < first:
            return f"{nvcc} is too old for sm_{name}, which needs {dotted(first)}.", _INSTALL
    driver = driver_version()
    if driver and driver[0] < nvcc.version[0]:  # within a major release, old drivers run what is newer
        what = f"{nvcc} is newer than the driver of this machine, which runs CUDA {dotted(driver)} at most."
        return what, f"Update the driver, or set CUDA_HOME to a toolkit of CUDA {driver[0]}."
    return None


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that this machine's driver runs, such as (12, 8); None without a driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def find_host_compiler() -> HostCompiler | None:
    """CXX where it is set, else the g++, c++ or clang++ of the PATH."""
    names = [("g++", "PATH"), ("c++", "PATH"), ("clang++", "PATH")]
    if words := os.environ.get("CXX", "").split():  # "ccache g++ -m64": nvcc takes a program and nothing else
        programs = [word for word in words if not word.startswith("-")]
        names = [((programs or words)[-1], "CXX")]
    for name, found in names:
        if (path := shutil.which(name)) and (said := _said(path, "--version")):
            return HostCompiler(Path(path), said.splitlines()[0], found)
    return None


def find_ninja() -> Path | None:
    """The one that pip put beside this package, else that of the PATH."""
    try:
        import ninja
    except ImportError:
        path = None
    else:
        path = shutil.which("ninja", path=ninja.BIN_DIR)
    return Path(found) if (found := path or shutil.which("ninja")) else None


def missing(
    wanted: Sequence[str] = (),  # architectures to build for
) -> list[tuple[str, str]]:
    """What stands in the way of a build, each as (what, what to do). Empty: nothing that can be seen from here."""
    if not sys.platform.startswith("linux"):
        return [("The CUDA kernels are built on Linux only.", "Everything works without them, slower.")]
    found = []
    nvcc = find_nvcc(wanted)
    if nvcc is None:
        found.append(("There is no nvcc in CUDA_HOME, on the PATH, or among the pip packages.", _INSTALL))
    elif why := objection(nvcc, wanted):
        found.append(why)
    if find_host_compiler() is None:
        if name := os.environ.get("CXX"):
            found.append((f"CXX names {name}, which is no C++ compiler.", "Set CXX to a g++, or unset it."))
        else:
            found.append(("There is no C++ compiler on the PATH.", "Install g++ (apt install g++), or set CXX to one."))
    if find_ninja() is None:
        found.append(("There is no ninja.", "pip install ninja"))
    return found


def _said(path: str | Path, *arguments: str) -> str:
    """What a program prints; nothing where it does not run."""
    try:
        done = subprocess.run([str(path), *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
