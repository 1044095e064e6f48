"""What one rank does in a process that `launcher` started, and how the two speak: by files in a folder of their own.

stop  the launcher wishes that the ranks stop in good order
here-<rank>  this rank's process can hear that
done-<rank>  this rank's function has returned
failed-<rank>  it has raised: what to tell the user, as JSON

Signals would not do. They reach the ranks from the terminal, from whoever ends a whole control group, and from torch's
launcher when another rank is lost, and only one of these is a wish to stop. So they are blocked here, from before the
first line of Python on.
"""

from __future__ import annotations

import _thread
import faulthandler
import json
import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SganError
from ..files import write_atomic
from .tensors import join_ranks
from .torchrun import ENVIRONMENT

BLOCKED = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Failure:
    """What a rank's function raised."""

    mistake: bool  # a SganError: nothing else is worth telling
    sentence: str
    hint: str | None
    traceback: str


def hush() -> None:
    """Keep what torch's launcher logs off the terminal."""
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


def run_rank(
    folder: Path,  # of this start of all ranks
    parent: int,  # process id of the launcher
    device: str,  # 'cpu' or 'cuda'
    threads: int,  # of this rank
    function: Callable,
    arguments: tuple,
) -> Any:  # what the function returned, on the first rank
    """Join the other ranks, call the function and write down how it ended."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name in ENVIRONMENT:  # what this process may start is no rank
        del os.environ[name]
    hush()
    if "PYTHONFAULTHANDLER" not in os.environ:  # torch's launcher turned it on
        faulthandler.disable()
    over = threading.Event()
    threading.Thread(target=_heed, args=(folder, parent, over), daemon=True).start()
    (folder / f"here-{rank}").touch()
    torch.set_num_threads(threads)
    try:
        join_ranks(device, rank, init_method=f"file://{folder}/ranks", rank=rank, world_size=ranks)
        result = function(*arguments)
        torch.distributed.destroy_process_group()
    except BaseException as e:
        write_atomic(folder / f"failed-{rank}", json.dumps(asdict(_failure(rank, e))))
        while True:  # the connections stay open, so that no other rank fails of this, until the launcher ends us all
            time.sleep(60)
    over.set()
    write_atomic(folder / f"done-{rank}", "")
    return result if rank == 0 else None


def failures(
    folder: Path,  # of this start of all ranks
) -> list[Failure]:
    """What ranks have raised, mistakes first."""
    found = [Failure(**json.loads(p.read_text())) for p in sorted(folder.glob("failed-*"))]
    return sorted(found, key=lambda failure: not failure.mistake)


def _failure(rank: int, error: BaseException) -> Failure:
    told = "".join(traceback.format_exception(error))
    if isinstance(error, SganError):
        return Failure(True, str(error), error.hint, told)
    sentence = f"Rank {rank} failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Failure(False, sentence, "Run again with --debug for the traceback.", told)


def _heed(folder: Path, parent: int, over: threading.Event) -> None:
    """End with the parent. Hand its wish to stop to whoever listens to SIGTERM here; end if nobody has ever done so."""
    listened = stopped = False
    while os.getppid() == parent:
        listens = callable(signal.getsignal(signal.SIGTERM))
        listened |= listens
        if not stopped and not over.is_set() and (folder / "stop").exists():
            if not listened:
                break
            stopped = True
            if listens:  # otherwise it is about to return by itself
                _thread.interrupt_main(signal.SIGTERM)
        time.sleep(0.1)
    if os.getppid() != parent:
        shutil.rmtree(folder.parent, ignore_errors=True)
    os._exit(1)
