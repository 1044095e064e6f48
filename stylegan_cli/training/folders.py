"""Run folders during training: claimed by the ranks, removed if unused, with the reason for a failure."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cache import sha256_of
from ..errors import SganError, quote
from ..files import atomic_path, write_atomic
from ..runs import latest_snapshot, next_run_dir
from ..runs.commands import train_command
from ..runs.records import read_config, recipe_of
from .state_files import list_states, read_about

FAILURE = "failure.txt"  # in the run folder: why the run failed
_LAUNCHER = ".launcher"  # in the run folder: which torchrun started it


def claim_folder(
    runs: str | os.PathLike,
    description: str,  # see `next_run_dir`
) -> Path:
    """Create the folder of a run that torchrun started, or find it again when torchrun restarts the ranks."""
    launcher = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if launcher == "none":  # torchrun was started without --rdzv-id
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
def record_failure(
    folder: Path,  # of the run
) -> Iterator[None]:
    """Write the reason to the folder if the run fails, so that a list of runs can show it.

    A resumed run that was refused is as it was before: its log has no new line, and it is not marked.
    """
    before = _log_size(folder) if list_states(folder) else None  # None: a new run
    try:
        yield
    except Exception as e:
        if before is None or _log_size(folder) != before:
            reason = f"{e}\n" if isinstance(e, SganError) else f"{type(e).__name__}: {e}\n"
            with contextlib.suppress(SganError):
                write_atomic(folder / FAILURE, reason)
        raise


def _log_size(folder: Path) -> int:  # bytes
    with contextlib.suppress(OSError):
        return (folder / "log.txt").stat().st_size
    return 0


def read_newest_about(
    folder: Path,  # of the run
) -> dict[str, Any]:
    """Return `read_about` of the newest state with a readable header, or {}. Damage is reported when the run starts."""
    for path in list_states(folder):
        with contextlib.suppress(SganError):
            return read_about(path)
    return {}


def refuse_other_recipe(
    folder: Path,  # of the run
    recipe: str,  # name of the recipe to be trained
) -> None:
    """Check the recipe of a folder. Raises SganError if its settings or its newest state belong to another recipe."""
    for values in (read_config(folder), read_newest_about(folder)):
        if (run_recipe := recipe_of(values)) not in (None, recipe):
            raise SganError(
                f"The run in {folder} uses the recipe {run_recipe!r} and cannot continue with {recipe!r}.",
                hint=f"Resume it: {train_command(read_config(folder))} --resume {quote(folder)}",
            )


def keep_copy(
    folder: Path,  # of the run
    path: str,  # of a file that the run reads
    content_hash: str,  # SHA-256
) -> None:
    """Copy a file into the run folder, since commands overwrite their outputs. Raises SganError if the disk is full."""
    copy = _copy_of(folder, path, content_hash)
    if not copy.is_file() and _is_file(path, content_hash):
        with atomic_path(copy) as temporary:
            shutil.copyfile(path, temporary)


def find_kept(
    folder: Path,  # of the run
    path: str,  # of the file when the run was started
    content_hash: str,  # SHA-256
) -> str:
    """Return the path of a file, or of its copy in the run folder if it is gone or has changed."""
    copy = _copy_of(folder, path, content_hash)
    return path if _is_file(path, content_hash) or not copy.is_file() else str(copy.absolute())


def _is_file(path: str, content_hash: str) -> bool:
    return os.path.isfile(path) and sha256_of(Path(path)) == content_hash


def _copy_of(folder: Path, path: str, content_hash: str) -> Path:
    name = Path(path)
    stem = name.stem.removesuffix(f"-{content_hash[:8]}")  # the file may be such a copy
    return folder / f"{stem}-{content_hash[:8]}{name.suffix}"
