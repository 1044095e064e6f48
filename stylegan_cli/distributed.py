"""Several processes as one: rank, sums over ranks, start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


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


def launch(
    function: Callable,  # called as function(*arguments) in each process; must be importable
    arguments: Sequence,
    ranks: int,
) -> None:
    """Run a function on so many ranks, here if it is one. NCCL where each rank has a GPU, else gloo."""
    if ranks == 1:
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        torch.multiprocessing.spawn(_child, (meeting, ranks, function, tuple(arguments)), nprocs=ranks)


def _child(this: int, meeting: str, ranks: int, function: Callable, arguments: tuple) -> None:
    on_gpu = torch.cuda.device_count() >= ranks
    if on_gpu:
        torch.cuda.set_device(this)
    else:
        torch.set_num_threads(max((os.cpu_count() or 1) // ranks, 1))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", init_method=meeting, rank=this, world_size=ranks)
    try:
        function(*arguments)
    finally:
        torch.distributed.destroy_process_group()


def _active() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
