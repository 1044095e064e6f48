"""Several processes as one: rank, sums over ranks, start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from .errors import SganError
from .files import write_atomic


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
    """Run a function on so many ranks, here if it is one. NCCL where each rank has a GPU, else gloo.

    A first Ctrl-C or SIGTERM is handed to the ranks as SIGTERM, a second one ends them. A SganError of a rank is raised
    here; whatever a rank dies of, the others are ended too.
    """
    if ranks == 1:
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        child = (folder, os.getpid(), ranks, function, tuple(arguments))
        context = torch.multiprocessing.spawn(_child, child, nprocs=ranks, join=False)
        with _signals_go_to(context.processes):
            try:
                while not context.join():
                    pass
            except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as e:
                told = Path(folder, "error.json")
                if told.exists():
                    raise SganError(*json.loads(told.read_text())) from e
                raise
            finally:
                for process in context.processes:
                    process.kill()


@contextlib.contextmanager
def _signals_go_to(processes: list) -> Iterator[None]:
    """The first SIGINT or SIGTERM goes on to the processes as SIGTERM; the second raises KeyboardInterrupt."""
    asked: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        for process in processes:
            process.terminate()

    old = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _child(this: int, folder: str, parent: int, ranks: int, function: Callable, arguments: tuple) -> None:
    def interrupted(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:  # it is gone; otherwise it tells us what Ctrl-C means
            os._exit(1)

    signal.signal(signal.SIGINT, interrupted)
    on_gpu = torch.cuda.device_count() >= ranks
    if on_gpu:
        torch.cuda.set_device(this)
    else:
        torch.set_num_threads(max((os.cpu_count() or 1) // ranks, 1))
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", init_method=meeting, rank=this, world_size=ranks)
    try:
        function(*arguments)
    except SganError as e:
        write_atomic(Path(folder, "error.json"), json.dumps([str(e), e.hint]))
        raise
    torch.distributed.destroy_process_group()


def _active() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
