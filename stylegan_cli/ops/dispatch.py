"""Which implementation of an op runs."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor

from . import build

IMPLS = ("auto", "cuda", "reference")

KERNEL_DEVICE = "cuda"  # the type of device that the kernels run on
_warned = False


@torch.compiler.assume_constant_result
def choose(
    impl: str,  # 'auto', 'cuda' or 'reference'
    device: str,  # type of the device that the tensors are on
) -> str:
    """'cuda' (the kernels of csrc/), 'composite' (PyTorch's own operations, arranged to be fast) or 'reference'.

    'auto' is what the environment variable SGAN_KERNELS says, else the kernels for tensors on a GPU: where they cannot
    be built, it warns once and takes the composite. 'cuda' raises instead: ValueError for tensors that are elsewhere,
    `build.BuildError` with the compiler's log. Raises ValueError on an unknown name.
    """
    source = "impl"
    if impl == "auto" and "SGAN_KERNELS" in os.environ:
        impl, source = os.environ["SGAN_KERNELS"], "SGAN_KERNELS"
    if impl not in IMPLS:
        raise ValueError(f"{source} must be 'auto', 'cuda' or 'reference', not {impl!r}")
    if impl == "reference":
        return "reference"
    if device != KERNEL_DEVICE:
        if impl == "cuda":
            raise ValueError(f"the CUDA kernels cannot take tensors on {device}: move them, or choose 'auto'")
        return "composite"
    try:
        build.load()
    except build.BuildError as error:
        if impl == "cuda":
            raise
        _warn_once(error)
        return "composite"
    return "cuda"


def _warn_once(error: build.BuildError) -> None:
    global _warned
    if not _warned:
        warnings.warn(f"{error} Going on without the CUDA kernels, slower; `sgan doctor` says more.", stacklevel=4)
    _warned = True


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format that a kernel writes its output in, given its input."""
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
