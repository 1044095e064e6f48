"""Choice of the implementation that an op runs."""

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

WITHOUT_FLOAT64 = ("mps",)  # device types: Apple's GPUs

_implementation: ContextVar[str | None] = ContextVar("implementation of the ops", default=None)
_kernel_device: ContextVar[str] = ContextVar("type of device that the kernels run on", default="cuda")


@contextlib.contextmanager
def use(
    implementation: str,  # one of IMPLEMENTATIONS
) -> Iterator[None]:
    """Choose the implementation of every op called within the block, in this thread or asynchronous task.

    'reference'  the equations in plain PyTorch
    'composite'  PyTorch's own operations, arranged to be fast
    'cuda'       the kernels of csrc/, or an error: ValueError for tensors that are not on a GPU, BuildError with the
                 compiler's log if the kernels cannot be built. Calls that no kernel supports use the composite.
    'fused'      like 'cuda', with each modulated convolution in a single kernel where supported
    'auto'       the kernels for tensors on a GPU, else the composite; warns once if the kernels cannot be built

    Blocks can be nested. Outside any block, the environment variable SGAN_KERNELS decides; unset or empty it means
    'auto'. Gradients use the implementation of the forward pass, as do later calls of a function that was compiled
    (torch.compile) within the block. Raises ValueError if the name is unknown.
    """
    token = _implementation.set(_validated(implementation, "implementation"))
    try:
        yield
    finally:
        _implementation.reset(token)


def current_implementation() -> str:  # one of IMPLEMENTATIONS
    """The implementation in effect. Raises ValueError if SGAN_KERNELS decides and is not valid."""
    return _implementation.get() or _validated(os.environ.get("SGAN_KERNELS") or "auto", "SGAN_KERNELS")


def check(
    implementation: str | None,  # None: the implementation in effect
    device: torch.device,
) -> None:
    """Raise SganError if the implementation is unknown or cannot run on the device."""
    try:
        implementation = current_implementation() if implementation is None else _validated(implementation, "kernels")
    except ValueError as error:
        raise SganError(f"{error}.") from error
    if implementation in ("cuda", "fused") and device.type != kernel_device():
        raise SganError(f"The CUDA kernels need a GPU, but the device is {device}.", hint="Use --kernels auto.")


def _validated(implementation: str, source: str) -> str:
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(map(repr, IMPLEMENTATIONS[:-1]))
        raise ValueError(f"{source} must be {names} or {IMPLEMENTATIONS[-1]!r}, not {implementation!r}")
    return implementation


@contextlib.contextmanager
def kernels_on(
    device: str,  # device type, such as 'cpu'
) -> Iterator[None]:
    """Run the kernels on this device type, where they are already registered: the test emulator does so for the CPU."""
    token = _kernel_device.set(device)
    try:
        yield
    finally:
        _kernel_device.reset(token)


def kernel_device() -> str:
    """The device type that the kernels run on."""
    return _kernel_device.get()


def choose(
    device: str,  # device type of the tensors
    cuda: bool = True,  # the kernel supports this call
    fused: bool = False,  # the fused kernel supports this call
) -> str:
    """The implementation for one call of an op: 'fused', 'cuda', 'composite' or 'reference'. Raises as `use` says."""
    choice = current_implementation()
    if choice in ("composite", "reference"):
        return choice
    if device != kernel_device():
        if choice != "auto":
            raise ValueError(f"the CUDA kernels cannot run on {device} tensors: move them to a GPU, or choose 'auto'")
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


# torch.compiler.assume_constant_result sets this too, but imports the compiler, which takes longer than PyTorch itself.
choose._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def has_kernels(device: torch.device) -> bool:
    """Whether ops run on the kernels there; unlike `choose`, never an error."""
    return device.type == kernel_device() and choose(device.type) in ("cuda", "fused")


@functools.cache
def _warn_once(problem: str) -> None:
    message = f"{problem} Continuing without the CUDA kernels, which is slower. Run `sgan doctor` for details."
    warnings.warn(message, stacklevel=4)


@contextlib.contextmanager
def tensor_cores(
    convolutions: bool,
    products: bool = False,  # of matrices, in fully connected layers: few, and their errors reach every level
) -> Iterator[None]:
    """Whether float32 convolutions and products use tensor cores on CUDA, which round their operands to TF32: 10 bits
    of mantissa, as in float16. Afterwards the settings are as before; they are those of the whole process."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def has_float64(device: torch.device) -> bool:
    return device.type not in WITHOUT_FLOAT64


def to_float64(x: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device has no such numbers."""
    return (x if has_float64(x.device) else x.cpu()).double()


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of a kernel's output, given its input."""
    channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
