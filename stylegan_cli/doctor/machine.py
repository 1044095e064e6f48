"""What this machine provides for training at full speed, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import cache
from ..errors import SganError
from ..kernels.toolchain import (
    BuildError,
    HostCompiler,
    Nvcc,
    architectures,
    dotted,
    driver_version,
    find_host_compiler,
    find_ninja,
    find_nvcc,
    find_problems,
)
from ..ops.dispatch import IMPLEMENTATIONS, kernel_device
from ..threads import available_cores, check_num_threads
from ..version import __version__

DEFAULT_ARCHITECTURES = ("80",)  # without a GPU: as PTX they also run on all later ones


@dataclass(frozen=True)
class Gpu:
    """A device that PyTorch sees."""

    name: str  # 'NVIDIA H100 80GB HBM3'
    architecture: str  # 'sm_90'
    memory: int  # in bytes


@dataclass(frozen=True)
class Advice:
    """An obstacle to full speed."""

    what: str  # one sentence
    todo: str  # how to fix it


@dataclass(frozen=True)
class Machine:
    """The tools and devices of this machine. None: not found."""

    version: str  # of stylegan_cli
    platform: str  # 'Linux-6.8.0-x86_64-with-glibc2.39'
    cores: int  # that this process may use
    python: str  # '3.12.3'
    python_path: str
    torch: str  # '2.13.0+cu130'
    cuda_runtime: str | None  # '13.0', which PyTorch was built with
    cuda_driver: str | None  # '13.1', the newest that the driver supports
    gpus: tuple[Gpu, ...]
    nvcc: Nvcc | None
    host_compiler: HostCompiler | None
    ninja: Path | None
    cache: Path  # the cache folder
    settings: dict[str, str]  # environment variables that start with SGAN_
    openmp: dict[str, str]  # environment variables of OpenMP, those that `sgan` sets included
    use_blockers: tuple[Advice, ...]  # of existing kernels
    build_blockers: tuple[Advice, ...]


def inspect_machine() -> Machine:
    """Collect everything that decides whether the kernels can be built and run here. Builds nothing."""
    driver, gpus = driver_version(), _gpus()
    settings = _variables("SGAN_")
    use_blockers = [] if gpus else [_no_gpu_advice(torch.version.cuda, driver)]
    use_blockers += _setting_advice(settings.get("SGAN_KERNELS") or "auto", bool(gpus))
    try:
        check_num_threads()
    except SganError as e:
        use_blockers.append(Advice(str(e), e.hint or ""))
    try:
        targets = target_architectures()
        build_blockers = [Advice(*problem) for problem in find_problems(targets)]
    except BuildError as e:
        targets, build_blockers = (), [Advice(str(e), e.hint or "")]
    return Machine(
        version=__version__,
        platform=platform.platform(),
        cores=available_cores(),
        python=platform.python_version(),
        python_path=sys.executable,
        torch=str(torch.__version__),
        cuda_runtime=torch.version.cuda,
        cuda_driver=dotted(driver) if driver else None,
        gpus=gpus,
        nvcc=find_nvcc(targets),
        host_compiler=find_host_compiler(),
        ninja=find_ninja(),
        cache=cache.folder(),
        settings=settings,
        openmp=_variables("OMP_", "GOMP_", "KMP_"),
        use_blockers=tuple(use_blockers),
        build_blockers=tuple(build_blockers),
    )


def target_architectures() -> tuple[str, ...]:
    """Architectures from SGAN_CUDA_ARCH or of the GPUs, else the default. Raises BuildError for an unsupported one."""
    return tuple(architectures()) or DEFAULT_ARCHITECTURES


def can_run_kernels() -> bool:
    """Whether PyTorch sees a device that the kernels can run on."""
    return kernel_device() != "cuda" or (torch.version.cuda is not None and torch.cuda.is_available())


def _variables(*prefixes: str) -> dict[str, str]:
    """The environment variables whose names start with one of the prefixes."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}


def _gpus() -> tuple[Gpu, ...]:
    if torch.version.cuda is None or not torch.cuda.is_available():
        return ()
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, f"sm_{p.major}{p.minor}", p.total_memory) for p in devices)


def _no_gpu_advice(
    runtime: str | None,  # CUDA version of PyTorch
    driver: tuple[int, int] | None,
) -> Advice:
    """The most likely reason why PyTorch sees no GPU."""
    if driver is None:
        todo = "If it has an NVIDIA GPU, install its driver, then a PyTorch for CUDA (https://pytorch.org)."
        return Advice("This machine has no NVIDIA driver.", todo)
    if runtime is None:
        todo = f"Install a PyTorch for CUDA {driver[0]} (https://pytorch.org)."
        return Advice("The NVIDIA driver is installed, but this PyTorch is built without CUDA.", todo)
    if int(runtime.partition(".")[0]) > driver[0]:
        what = f"PyTorch is built for CUDA {runtime}, but the driver supports CUDA {dotted(driver)} at most."
        return Advice(what, f"Update the driver, or install a PyTorch for CUDA {driver[0]} (https://pytorch.org).")
    what = "The NVIDIA driver is installed, but PyTorch sees no GPU."
    return Advice(what, "Check whether nvidia-smi lists one, and whether CUDA_VISIBLE_DEVICES hides it.")


def _setting_advice(
    kernels: str,  # value of SGAN_KERNELS
    has_gpu: bool,
) -> list[Advice]:
    if kernels not in IMPLEMENTATIONS:
        return [Advice(f"SGAN_KERNELS is {kernels!r}, which is not valid.", "Set it to auto, or unset it.")]
    if kernels in ("composite", "reference"):
        return [Advice(f"SGAN_KERNELS={kernels} prevents the use of the CUDA kernels.", "Unset it.")]
    if kernels != "auto" and not has_gpu:
        return [Advice(f"SGAN_KERNELS={kernels} selects kernels that need a GPU.", "Unset it.")]
    return []
