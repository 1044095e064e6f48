"""Several processes as one: rank, sums over ranks, start."""

from __future__ import annotations

import contextlib
import json
import logging
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
    device: str = "cpu",  # 'cuda': NCCL, rank i on GPU i; else gloo
) -> None:
    """Run a function on so many ranks, here if it is one.

    A first Ctrl-C or SIGTERM is handed to the ranks as SIGTERM, a second one ends them. A SganError of a rank is raised
    here; whatever a rank dies of, the others are ended too.
    """
    if ranks == 1:
        function(*arguments)
        return
    if device != "cpu" and (device != "cuda" or torch.cuda.device_count() < ranks):
        raise SganError(
            f"There are not {ranks} GPUs for as many ranks with --device {device}.", hint="Use --device cpu."
        )
    threads = max(torch.get_num_threads() // ranks, 1)
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        child = (folder, os.getpid(), ranks, device, threads, function, tuple(arguments))
        context = torch.multiprocessing.spawn(_child, child, nprocs=ranks, join=False)
        with _signals_go_to(context.processes) as asked:
            try:
                while not context.join():
                    pass
            except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as e:
                if asked:  # it had not begun to listen
                    raise KeyboardInterrupt from None
                told = Path(folder, "error.json")
                if told.exists():
                    raise SganError(*json.loads(told.read_text())) from e
                raise
            finally:
                for process in context.processes:
                    process.kill()


@contextlib.contextmanager
def _signals_go_to(processes: list) -> Iterator[list[int]]:
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
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _child(
    this: int, folder: str, parent: int, ranks: int, device: str, threads: int, function: Callable, arguments: tuple
) -> None:
    def interrupted(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:  # it is gone; otherwise it tells us what Ctrl-C means
            os._exit(1)

    signal.signal(signal.SIGINT, interrupted)
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(this)
    backend = "nccl" if device == "cuda" else "gloo"
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(backend, init_method=meeting, rank=this, world_size=ranks)
    try:
        function(*arguments)
    except Exception as e:
        mistake = isinstance(e, SganError)
        sentence = (
            str(e) if mistake else f"Rank {this} failed with {type(e).__name__}: {' '.join(str(e).split())[:300]}"
        )
        hint = e.hint if mistake else "Run again with --debug for the traceback."
        write_atomic(Path(folder, "error.json"), json.dumps([sentence, hint]))
        raise
    torch.distributed.destroy_process_group()


def _active() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
