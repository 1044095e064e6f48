"""Starts a training run on all ranks, whatever its recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .call import warn

if TYPE_CHECKING:
    from ..training.run import RunOptions


def launch_run(
    train: Callable[..., Path],  # called on every rank with `arguments(folder)`; returns the folder
    arguments: Callable[[Path | None], tuple[Any, ...]],
    *,
    folder: Path | None,  # of the run to resume; None: a new run
    name: str,  # of a new folder without its number
    gpus: int,
    device: str,
    options: RunOptions,
    describe: Callable[[Path | None], str],  # what is trained, printed before
    describe_next: Callable[[Path], str],  # what to do next, printed after
) -> None:
    """Train in the run folder on all ranks, and print the folder. A new folder that was not used is removed."""
    from .. import distributed
    from ..runs import next_run_dir
    from ..training.folders import discard_unused, record_failure

    # Ranks that torchrun started agree on a folder first; for our own it is made here, as they may be restarted.
    used = folder or (None if distributed.has_launcher() else next_run_dir(options.runs, name))
    if not options.quiet and distributed.is_first_on_machine():
        warn(*describe(used).split("\n"))
    try:
        with record_failure(used) if used else contextlib.nullcontext():
            result = distributed.launch(train, arguments(used), gpus, device)
    except BaseException:
        if folder is None and used is not None:
            discard_unused(used)
        raise
    if distributed.is_first_on_machine():
        warn(*describe_next(used or result).split("\n"))
        click.echo(used or result)
