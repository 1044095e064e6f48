"""What ranks tell each other, as tensors of numbers: gloo and NCCL alike, nothing is pickled."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import SganError

# A rank that waits, for room on a full disk say, must not end the run.
PATIENCE = datetime.timedelta(days=1)

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # by bytes; anything wider is read as int64


def require_devices(
    ranks: int,  # of this machine
    device: str,  # 'cpu'; 'cuda': one GPU for each
) -> None:
    if device != "cpu" and (device != "cuda" or torch.cuda.device_count() < ranks):
        count = torch.cuda.device_count() if device == "cuda" else 1
        raise SganError(
            f"--gpus {ranks} is more than the {count} GPU(s) of --device {device}.",
            hint=f"Choose --gpus {count}." if count else "Use --device cpu.",
        )


def join_ranks(
    device: str,  # 'cuda': NCCL on the GPU of this number; else gloo
    local: int,  # number of this process among those of its machine
    **meeting,  # init_method, rank and world_size; left out, they come from the environment
) -> None:
    """Make this process one rank of many; torch.distributed.destroy_process_group ends that."""
    if device == "cuda":
        torch.cuda.set_device(local)
    backend = "nccl" if device == "cuda" else "gloo"
    with _no_greetings():
        torch.distributed.init_process_group(backend, timeout=PATIENCE, **meeting)


def rank() -> int:
    return torch.distributed.get_rank() if _active() else 0


def world_size() -> int:
    return torch.distributed.get_world_size() if _active() else 1


def sum_over_ranks(
    tensor: Tensor,  # [...] the same shape on all ranks
) -> Tensor:  # [...] in place
    """Add up over the ranks; alone, nothing happens."""
    if _active():
        torch.distributed.all_reduce(tensor)
    return tensor


def sum_gradients(
    parameters: Iterable[torch.nn.Parameter],
) -> None:
    """Add the gradients up over the ranks, as one flat tensor."""
    if not _active():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = sum_over_ranks(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_over_ranks(
    tensor: Tensor,  # [...] of any type, the same shape on all ranks
) -> list[Tensor]:  # [...] each, by rank
    """Everybody's tensor on every rank, to the bit."""
    if not _active():
        return [tensor]
    mine = tensor.detach().to(_wire()).contiguous()
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    torch.distributed.all_gather([_bytes(p) for p in parts], _bytes(mine))
    return [p.to(tensor.device) for p in parts]


def broadcast_text(
    text: str | None,  # of the first rank; what the others give is not read
) -> str:
    """The first rank's text on every rank."""
    if not _active():
        return text or ""
    content = torch.tensor(list((text or "").encode()), dtype=torch.uint8, device=_wire())
    length = torch.tensor([len(content)], device=_wire())
    torch.distributed.broadcast(length, 0)
    if rank() != 0:
        content = torch.empty(int(length), dtype=torch.uint8, device=_wire())
    if int(length):
        torch.distributed.broadcast(content, 0)
    return bytes(content.tolist()).decode()


def any_rank(
    flag: bool,
    device: str | torch.device,  # where a small tensor may be put: the GPU with NCCL
) -> bool:
    """Whether it is so on any rank."""
    if not _active():
        return flag
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device)))


def same_on_all_ranks(
    tensors: Iterable[Tensor],  # as many on every rank
) -> bool:
    """Whether the tensors hold the same bits on every rank, by a checksum of 64 bits; alone: True."""
    if not _active():
        return True
    total = torch.zeros((), dtype=torch.int64, device=_wire())
    for tensor in tensors:
        total = total * 31 + _checksum(tensor).to(_wire())
    # max(~x) is ~min(x), without the overflow that -x has at one end.
    extremes = torch.stack([total, ~total])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    return bool(extremes[0] == ~extremes[1])


@contextlib.contextmanager
def _no_greetings() -> Iterator[None]:
    """The gloo of some releases, PyTorch 2.10 for one, greets on stdout, where results go, from C++."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _checksum(tensor: Tensor) -> Tensor:
    """Sum of the bits, as integers, times an odd number for each place, modulo 2^64: it sees any single change."""
    numbers = tensor.detach().reshape(-1).contiguous()
    numbers = numbers.view(_INTEGERS.get(tensor.element_size(), torch.int64))
    total = torch.full((), tensor.numel(), dtype=torch.int64, device=tensor.device)
    for first in range(0, len(numbers), 2**22):  # not all of a large tensor as int64 at once
        part = numbers[first : first + 2**22].long()
        place = torch.arange(first, first + len(part), device=tensor.device)
        total += (part * (place * 0x1E3779B97F4A7C15 * 2 + 1)).sum()
    return total


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _wire() -> torch.device:
    """Where the tensors must be that the ranks exchange."""
    return torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")


def _active() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
