"""Which implementation of an op runs."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from ..errors import SganError
from ..kernels.build import load
from ..kernels.toolchain import BuildError

IMPLEMENTATIONS = ("auto", "cuda", "fused", "composite", "reference")

_chosen: ContextVar[str | None] = ContextVar("implementation of the ops", default=None)
_kernel_device: ContextVar[str] = ContextVar("type of device that the kernels run on", default="cuda")


@contextlib.contextmanager
def use(
    implementation: str,  # of IMPLEMENTATIONS
) -> Iterator[None]:
    """Choose the implementation of every op called within the block, in this thread or asynchronous task.

    'reference'  the equations in plain PyTorch
    'composite'  PyTorch's own operations, arranged to be fast
    'cuda'       the kernels of csrc/, or an error: ValueError for tensors that are not on a GPU, BuildError with the
                 compiler's log where the kernels cannot be built. What no kernel is made for is composite.
    'fused'      as 'cuda', with modulated convolutions in one kernel where it is able to
    'auto'       the kernels for tensors on a GPU, else the composite; where they cannot be built, it warns once

    Blocks may be nested. Outside of all, the environment variable SGAN_KERNELS has the word, 'auto' where it is not
    set or empty. Gradients are computed by the implementation of the forward pass; so are later calls of a function
    that was compiled (torch.compile) within the block. Raises ValueError on an unknown name.
    """
    token = _chosen.set(_known(implementation, "implementation"))
    try:
        yield
    finally:
        _chosen.reset(token)


def current_implementation() -> str:  # of IMPLEMENTATIONS
    """The choice in force. Raises ValueError if SGAN_KERNELS has the word and is none."""
    return _chosen.get() or _known(os.environ.get("SGAN_KERNELS") or "auto", "SGAN_KERNELS")


def check(
    implementation: str | None,  # None: the choice in force
    device: torch.device,
) -> None:
    """Raises SganError if there is no such implementation, or it cannot run on that device."""
    try:
        implementation = current_implementation() if implementation is None else _known(implementation, "kernels")
    except ValueError as error:
        raise SganError(f"{error}.") from error
    if implementation in ("cuda", "fused") and device.type != kernel_device():
        raise SganError(f"The CUDA kernels need a GPU, and this would run on {device}.", hint="Use --kernels auto.")


def _known(implementation: str, source: str) -> str:
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(map(repr, IMPLEMENTATIONS[:-1]))
        raise ValueError(f"{source} must be {names} or {IMPLEMENTATIONS[-1]!r}, not {implementation!r}")
    return implementation


@contextlib.contextmanager
def kernels_on(
    device: str,  # a type of device, 'cpu'
) -> Iterator[None]:
    """Within the block the kernels are those that are registered for this type of device already: the emulator of the
    tests registers some for the CPU."""
    token = _kernel_device.set(device)
    try:
        yield
    finally:
        _kernel_device.reset(token)


def kernel_device() -> str:
    """The type of device that the kernels run on."""
    return _kernel_device.get()


@torch.compiler.assume_constant_result
def choose(
    device: str,  # type of the device that the tensors are on
    cuda: bool = True,  # the op's kernel takes this call
    fused: bool = False,  # the op's fused kernel does
) -> str:
    """The implementation for one call of an op: 'fused', 'cuda', 'composite' or 'reference'. Raises as `use` says."""
    choice = current_implementation()
    if choice in ("composite", "reference"):
        return choice
    if device != kernel_device():
        if choice != "auto":
            raise ValueError(f"the CUDA kernels cannot take tensors on {device}: move them, or choose 'auto'")
        return "composite"
    if device == "cuda":
        try:
            load()
        except BuildError as error:
            if choice != "auto":
                raise
            _warn_once(str(error))
            return "composite"
    if choice == "fused" and fused:
        return "fused"
    return "cuda" if cuda else "composite"


@functools.cache
def _warn_once(problem: str) -> None:
    warnings.warn(f"{problem} Going on without the CUDA kernels, slower; `sgan doctor` says more.", stacklevel=4)


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format that a kernel writes its output in, given its input."""
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
