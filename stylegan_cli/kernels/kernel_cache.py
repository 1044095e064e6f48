"""Where built kernels are kept: the folder, what is whole, and what has failed."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import warnings
from pathlib import Path

from .. import cache
from ..errors import SganError
from ..files import check_writable, no_room, write_atomic
from .toolchain import BuildError

AGAIN = "With the cause mended, `sgan doctor` builds again."


def writable(folder: Path) -> Path | None:
    """The folder, made if need be; None where this user cannot write. A full disk is an error of its own."""
    try:
        check_writable(folder)
    except SganError as e:
        if no_room(e):
            raise no_space(folder) from e
        return None
    locks = folder.glob(".*.lock")  # of other users, where several share the folder
    return folder if all(os.access(lock, os.W_OK) for lock in locks) else None


def temporary(name: str) -> Path:
    """A folder for this build among the temporary files, which nobody else can put a library into."""
    root = Path(tempfile.gettempdir()) / f"stylegan_cli-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        what = f"{cache.folder()} cannot be written, and {root} is no folder of this user alone."
        raise BuildError(what, "Set SGAN_CACHE to a folder of your own.")
    warnings.warn(f"{cache.folder()} cannot be written; the CUDA kernels are kept in {root}.", stacklevel=1)
    (root / "kernels" / name).mkdir(parents=True, exist_ok=True)
    return root / "kernels" / name


# A library and the record that it is whole: a part of one, mapped into memory, would end the process


def record(library: Path) -> Path:
    return library.with_suffix(".json")


def is_whole(library: Path) -> bool:
    try:
        made = json.loads(record(library).read_text())
        return made["sha256"] == cache.sha256_of(library)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def discard(library: Path) -> None:
    for path in (record(library), library):
        with contextlib.suppress(OSError):
            path.unlink()


# Builds that failed


def remembered(error: BuildError, folder: Path) -> BuildError:
    with contextlib.suppress(SganError):
        told = {"message": str(error), "hint": error.hint, "log": error.log and str(error.log)}
        write_atomic(folder / "failed.json", json.dumps(told))
    return error


def raise_remembered(folder: Path) -> None:
    try:
        told = json.loads((folder / "failed.json").read_text())
        error = BuildError(told["message"], told["hint"], told["log"] and Path(told["log"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise error


def no_space(folder: Path) -> BuildError:
    hint = "Free some, or set SGAN_CACHE to a folder on another disk."
    return BuildError(f"There is no space left for the CUDA kernels in {folder}.", hint)
