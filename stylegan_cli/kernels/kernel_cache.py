"""The cache of built kernels: its folder, which libraries are intact, which builds failed."""

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
from ..files import check_writable, disk_full_reason, write_atomic
from .toolchain import BuildError

RETRY_HINT = "Fix the cause, then run `sgan doctor` to build again."


def writable(folder: Path) -> Path | None:
    """The folder, created if necessary; None if this user cannot write there. Raises BuildError if the disk is full."""
    try:
        check_writable(folder)
    except SganError as e:
        if disk_full_reason(e):
            raise no_space_error(folder) from e
        return None
    locks = folder.glob(".*.lock")  # they can belong to other users of a shared folder
    return folder if all(os.access(lock, os.W_OK) for lock in locks) else None


def temporary_folder(name: str) -> Path:
    """A folder for this build among the temporary files, private so that nobody else can plant a library."""
    root = Path(tempfile.gettempdir()) / f"stylegan_cli-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        message = f"{cache.folder()} is not writable, and {root} is not a private folder of this user."
        raise BuildError(message, "Set SGAN_CACHE to a folder of your own.")
    warnings.warn(f"{cache.folder()} is not writable; the CUDA kernels are cached in {root} instead.", stacklevel=1)
    (root / "kernels" / name).mkdir(parents=True, exist_ok=True)
    return root / "kernels" / name


# A library and the metadata that proves it intact: mapping a truncated one into memory would crash the process.


def metadata_path(library: Path) -> Path:
    return library.with_suffix(".json")


def is_intact(library: Path) -> bool:
    try:
        metadata = json.loads(metadata_path(library).read_text())
        return metadata["sha256"] == cache.sha256_of(library)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def discard(library: Path) -> None:
    for path in (metadata_path(library), library):
        with contextlib.suppress(OSError):
            path.unlink()


# Builds that failed


def remember_failure(error: BuildError, folder: Path) -> BuildError:
    """Save the error for `raise_remembered_failure` and return it."""
    with contextlib.suppress(SganError):
        content = {"message": str(error), "hint": error.hint, "log": error.log and str(error.log)}
        write_atomic(folder / "failed.json", json.dumps(content))
    return error


def raise_remembered_failure(folder: Path) -> None:
    """Raise the error of an earlier build in this folder, if it failed."""
    try:
        content = json.loads((folder / "failed.json").read_text())
        error = BuildError(content["message"], content["hint"], content["log"] and Path(content["log"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise error


def no_space_error(folder: Path) -> BuildError:
    hint = "Free some space, or set SGAN_CACHE to a folder on another disk."
    return BuildError(f"The disk is full: no space left for the CUDA kernels in {folder}.", hint)
