"""What this machine has for training at full speed, and what to do about what it lacks."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import cache
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
    missing,
)
from ..ops.dispatch import IMPLEMENTATIONS, kernel_device

WITHOUT_GPU = ("80",)  # what to build for where there is no GPU: by its PTX it runs on all later ones, too


@dataclass(frozen=True)
class Gpu:
    """A device that PyTorch sees."""

    name: str  # 'NVIDIA H100 80GB HBM3'
    architecture: str  # 'sm_90'
    memory: int  # in bytes


@dataclass(frozen=True)
class Advice:
    """Something that stands in the way of full speed."""

    what: str  # one sentence
    todo: str  # what to type or to change


@dataclass(frozen=True)
class Machine:
    """What was found. None: there is none."""

    python: str  # '3.12.3'
    python_path: str
    torch: str  # '2.13.0+cu130'
    cuda_runtime: str | None  # '13.0', the one that PyTorch was built with
    cuda_driver: str | None  # '13.1', the newest CUDA that the driver runs
    gpus: tuple[Gpu, ...]
    nvcc: Nvcc | None
    host_compiler: HostCompiler | None
    ninja: Path | None
    cache: Path  # folder of what took long to make
    settings: dict[str, str]  # the SGAN_ variables of the environment
    hinders_use: tuple[Advice, ...]  # of the kernels, once there are any
    hinders_building: tuple[Advice, ...]


def inspect_machine() -> Machine:
    """Everything that decides whether the kernels can be built and run here. Builds nothing."""
    driver, gpus = driver_version(), _gpus()
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SGAN_")}
    in_use = [] if gpus else [_no_gpu(torch.version.cuda, driver)]
    in_use += _setting_in_the_way(settings.get("SGAN_KERNELS") or "auto", bool(gpus))
    try:
        wanted = wanted_architectures()
        in_building = [Advice(*found) for found in missing(wanted)]
    except BuildError as e:
        wanted, in_building = (), [Advice(str(e), e.hint or "")]
    return Machine(
        python=platform.python_version(),
        python_path=sys.executable,
        torch=str(torch.__version__),
        cuda_runtime=torch.version.cuda,
        cuda_driver=dotted(driver) if driver else None,
        gpus=gpus,
        nvcc=find_nvcc(wanted),
        host_compiler=find_host_compiler(),
        ninja=find_ninja(),
        cache=cache.folder(),
        settings=settings,
        hinders_use=tuple(in_use),
        hinders_building=tuple(in_building),
    )


def wanted_architectures() -> tuple[str, ...]:
    """Those that SGAN_CUDA_ARCH or the GPUs ask for, else WITHOUT_GPU. Raises BuildError for what is none."""
    return tuple(architectures()) or WITHOUT_GPU


def can_run_kernels() -> bool:
    """Whether PyTorch sees a device of the kind that the kernels are made for."""
    return kernel_device() != "cuda" or (torch.version.cuda is not None and torch.cuda.is_available())


def _gpus() -> tuple[Gpu, ...]:
    if torch.version.cuda is None or not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple(Gpu(p.name, f"sm_{p.major}{p.minor}", p.total_memory) for p in found)


def _no_gpu(
    runtime: str | None,  # of PyTorch
    driver: tuple[int, int] | None,
) -> Advice:
    """Why PyTorch sees no GPU, as far as that can be told."""
    if driver is None:
        todo = "Only if it has an NVIDIA GPU: install its driver, then a PyTorch for CUDA (https://pytorch.org)."
        return Advice("This machine has no NVIDIA driver.", todo)
    if runtime is None:
        todo = f"Install one for CUDA {driver[0]} (https://pytorch.org)."
        return Advice("There is an NVIDIA driver, but this PyTorch is built without CUDA.", todo)
    if int(runtime.partition(".")[0]) > driver[0]:
        what = f"PyTorch is built for CUDA {runtime}, but the driver runs CUDA {dotted(driver)} at most."
        return Advice(what, f"Update the driver, or install a PyTorch for CUDA {driver[0]} (https://pytorch.org).")
    what = "There is an NVIDIA driver, but PyTorch sees no GPU."
    return Advice(what, "See whether nvidia-smi lists one, and whether CUDA_VISIBLE_DEVICES hides it.")


def _setting_in_the_way(
    kernels: str,  # what SGAN_KERNELS says
    gpu: bool,  # there is one
) -> list[Advice]:
    if kernels not in IMPLEMENTATIONS:
        return [Advice(f"SGAN_KERNELS is {kernels!r}, which means nothing.", "Set it to auto, or unset it.")]
    if kernels in ("composite", "reference"):
        return [Advice(f"SGAN_KERNELS={kernels} keeps the CUDA kernels from being used.", "Unset it.")]
    if kernels != "auto" and not gpu:
        return [Advice(f"SGAN_KERNELS={kernels} asks for kernels that need a GPU.", "Unset it.")]
    return []
