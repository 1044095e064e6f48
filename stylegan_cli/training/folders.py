"""Folders of runs in training: claimed by ranks, removed if nothing came of them, told why a run failed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SganError
from ..runs import latest_snapshot, next_run_dir
from ..runs.records import read_config, recipe_of
from .state_files import list_states, read_about

FAILURE = "failure.txt"  # in a run's folder: why it ended
_LAUNCHER = ".launcher"  # in a run's folder: which torchrun started it


def claimed_folder(
    runs: str | os.PathLike,
    description: str,  # see `next_run_dir`
) -> Path:
    """The folder of a run that torchrun started: a new one, or, when torchrun starts its ranks again, the same."""
    launcher = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if launcher == "none":  # torchrun was given no --rdzv-id
        launcher = f"{socket.gethostname()} {os.getppid()}"
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        for mark in sorted(Path(runs).glob(f"*/{_LAUNCHER}"), reverse=True):
            if mark.read_text().strip() == launcher:
                return mark.parent
    folder = next_run_dir(runs, description)
    (folder / _LAUNCHER).write_text(launcher)
    return folder


def discard_unused(
    folder: Path,  # of a new run
) -> None:
    """Remove the folder of a run that failed before it logged anything."""
    if not list_states(folder) and latest_snapshot(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def failure_told(
    folder: Path,  # of the run
) -> Iterator[None]:
    """Leave the reason in the folder if the run fails, so that a list of runs can tell."""
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except Exception as e:
        with contextlib.suppress(OSError):
            (folder / FAILURE).write_text(f"{e}\n" if isinstance(e, SganError) else f"{type(e).__name__}: {e}\n")
        raise


def newest_about(
    folder: Path,  # of the run
) -> dict[str, Any]:
    """What the newest state with a readable header says of itself: damage is told when the run begins. Empty: none."""
    for path in list_states(folder):
        with contextlib.suppress(SganError):
            return read_about(path)
    return {}


def refuse_other_recipe(
    folder: Path,  # of the run
    recipe: str,  # name of the one that is to be trained
) -> None:
    """Raises SganError if the settings or the newest state in the folder are those of another recipe."""
    for values in (read_config(folder), newest_about(folder)):
        if (theirs := recipe_of(values)) not in (None, recipe):
            raise SganError(f"The run in {folder} is of the recipe {theirs!r} and cannot go on as one of {recipe!r}.")
