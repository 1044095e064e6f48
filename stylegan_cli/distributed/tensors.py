"""Communication between ranks, through tensors: it works with gloo and NCCL, and pickles nothing."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import SganError, plural

# A rank that waits, because the disk is full for example, must not end the run.
TIMEOUT = datetime.timedelta(days=1)

_alone = False  # within `alone`
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # by size in bytes; larger types are read as int64


def require_devices(
    ranks: int,  # on this machine
    device: str,  # 'cpu', or 'cuda': one GPU per rank
) -> None:
    """Raise SganError if there are more ranks than devices."""
    if device != "cpu" and (device != "cuda" or torch.cuda.device_count() < ranks):
        count = torch.cuda.device_count() if device == "cuda" else 1
        raise SganError(
            f"--gpus {ranks} exceeds the {plural(count, 'GPU')} available with --device {device}.",
            hint=f"Use --gpus {count}." if count else "Use --device cpu.",
        )


def join_ranks(
    device: str,  # 'cuda': NCCL on GPU number local_rank; otherwise gloo
    local_rank: int,  # rank of this process on its machine
    **rendezvous,  # init_method, rank and world_size; by default they come from the environment
) -> None:
    """Make this process one of several ranks, until torch.distributed.destroy_process_group."""
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    backend = "nccl" if device == "cuda" else "gloo"
    with _stdout_silenced():
        torch.distributed.init_process_group(backend, timeout=TIMEOUT, **rendezvous)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Act as the only rank within it: for work that may fail on some ranks, for which the others would wait."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def rank() -> int:
    return torch.distributed.get_rank() if _active() else 0


def world_size() -> int:
    return torch.distributed.get_world_size() if _active() else 1


def sum_over_ranks(
    tensor: Tensor,  # [...] the same shape on all ranks
) -> Tensor:  # [...] in place
    """Sum a tensor over all ranks. With one rank, does nothing."""
    if _active():
        torch.distributed.all_reduce(tensor)
    return tensor


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        return sum_over_ranks(tensor.clone())

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _SumOverRanks.apply(gradient)  # pyright: ignore[reportReturnType]


def differentiable_sum_over_ranks(
    tensor: Tensor,  # [...] the same shape on all ranks
) -> Tensor:  # [...] a new one
    """Sum over all ranks. Its gradient is that of the sum of all ranks' losses, any number of times."""
    return _SumOverRanks.apply(tensor)  # pyright: ignore[reportReturnType]


def sum_gradients(
    parameters: Iterable[torch.nn.Parameter],
) -> None:
    """Sum the gradients over all ranks, as one flat tensor."""
    if not _active():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = sum_over_ranks(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_over_ranks(
    tensor: Tensor,  # [...] any type, the same shape on all ranks
) -> list[Tensor]:  # [...] each, by rank
    """Exact copies of every rank's tensor, on every rank."""
    if not _active():
        return [tensor]
    local = tensor.detach().to(_exchange_device()).contiguous()
    parts = [torch.empty_like(local) for _ in range(world_size())]
    torch.distributed.all_gather([_bytes(p) for p in parts], _bytes(local))
    return [p.to(tensor.device) for p in parts]


def broadcast_text(
    text: str | None,  # read on the first rank only; may be the name of a file
) -> str:
    """Send the first rank's text to every rank."""
    if not _active():
        return text or ""
    content = torch.tensor(list(os.fsencode(text or "")), dtype=torch.uint8, device=_exchange_device())
    length = torch.tensor([len(content)], device=_exchange_device())
    torch.distributed.broadcast(length, 0)
    if rank() != 0:
        content = torch.empty(int(length), dtype=torch.uint8, device=_exchange_device())
    if int(length):
        torch.distributed.broadcast(content, 0)
    return os.fsdecode(bytes(content.tolist()))


def any_rank(
    flag: bool,
    device: str | torch.device,  # device for a small tensor: the GPU with NCCL
) -> bool:
    """Whether the flag is set on any rank."""
    if not _active():
        return flag
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device)))


def same_on_all_ranks(
    tensors: Iterable[Tensor],  # the same number on every rank
) -> bool:
    """Whether the tensors have the same bits on every rank, by a 64-bit checksum. With one rank, True."""
    if not _active():
        return True
    total = torch.zeros((), dtype=torch.int64, device=_exchange_device())
    for tensor in tensors:
        total = total * 31 + _checksum(tensor).to(_exchange_device())
    # max(~x) is ~min(x), and cannot overflow like -x.
    extremes = torch.stack([total, ~total])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    return bool(extremes[0] == ~extremes[1])


@contextlib.contextmanager
def _stdout_silenced() -> Iterator[None]:
    """Silence gloo, which in some releases such as PyTorch 2.10 prints to stdout from C++, where results go."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    stdout, devnull = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(devnull)


def _checksum(tensor: Tensor) -> Tensor:
    """Sum of the elements as integers, each times an odd number, modulo 2^64: any single change is detected."""
    numbers = tensor.detach().reshape(-1).contiguous()
    numbers = numbers.view(_INTEGERS.get(tensor.element_size(), torch.int64))
    total = torch.full((), tensor.numel(), dtype=torch.int64, device=tensor.device)
    for first in range(0, len(numbers), 2**22):  # in parts, as int64 takes up to 8 times the memory
        part = numbers[first : first + 2**22].long()
        index = torch.arange(first, first + len(part), device=tensor.device)
        total += (part * (index * 0x1E3779B97F4A7C15 * 2 + 1)).sum()
    return total


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _exchange_device() -> torch.device:
    """The device that exchanged tensors must be on."""
    return torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")


def _active() -> bool:
    return not _alone and torch.distributed.is_available() and torch.distributed.is_initialized()
