"""Where built kernels are kept: the folder, who may build in it, what is whole, and what has failed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..errors import SganError
from ..files import cache_folder, write_atomic
from .toolchain import BuildError

AGAIN = "With the cause mended, `sgan doctor` builds again."
FULL = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 3  # seconds of waiting before it is said what for


def writable(folder: Path) -> Path | None:
    """The folder, made if need be; None where this user cannot write. A full disk is an error of its own."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "a"):
            return folder
    except OSError as e:
        if e.errno in FULL:
            raise
        return None


def temporary(name: str) -> Path:
    """A folder for this build among the temporary files, which nobody else can put a library into."""
    root = Path(tempfile.gettempdir()) / f"stylegan_cli-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        what = f"{cache_folder()} cannot be written, and {root} is no folder of this user alone."
        raise BuildError(what, "Set SGAN_CACHE to a folder of your own.")
    warnings.warn(f"{cache_folder()} cannot be written; the CUDA kernels are kept in {root}.", stacklevel=1)
    (root / name).mkdir(parents=True, exist_ok=True)
    return root / name


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone. The lock ends with its holder; no program started here inherits it."""
    import fcntl  # not on Windows, where nothing is built

    with open(folder / "lock", "a") as f:
        said, start = False, time.monotonic()
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said and time.monotonic() - start > _PATIENCE:
                    said = True
                    print("Another process builds the CUDA kernels; waiting for it.", file=sys.stderr, flush=True)
                time.sleep(0.1)
        yield


# A library and the record that it is whole: a part of one, mapped into memory, would end the process


def record(library: Path) -> Path:
    return library.with_suffix(".json")


def is_whole(library: Path) -> bool:
    try:
        made = json.loads(record(library).read_text())
        return made["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()
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
