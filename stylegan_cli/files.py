"""Atomic writing of files, and writers that wait for disk space."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .errors import MisuseError, SganError, suggest

if TYPE_CHECKING:
    from safetensors import safe_open

T = TypeVar("T")


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike,  # final location of the file
) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. When the block succeeds, the file is fsynced and renamed to ``path``,
    and the folder is fsynced, so that the new file survives a power cut.

    On any exception, including Ctrl-C, the temporary file is removed and ``path`` is untouched.
    Raises SganError if the folder is not writable or the disk is full.
    """
    path = Path(path)
    temporary = temporary_beside(path)  # named before it exists, so that a signal at any time can remove it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as e:
        raise SganError(f"Cannot write {path}: {e.strerror or e}.") from e
    finally:
        with contextlib.suppress(OSError):  # the parent may not be a folder, or may be gone
            temporary.unlink()


def check_writable(
    folder: Path,  # created if missing
) -> None:
    """Check that files can be written to a folder, before long work rather than after it. Raises SganError if not."""
    probe = temporary_beside(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as e:
        raise SganError(f"Cannot write to {folder}: {e.strerror or e}.") from e


def write_atomic(
    path: str | os.PathLike,
    content: str | bytes,  # text is encoded as UTF-8, undecodable bytes of file names as escapes
) -> None:
    """Write a whole file, or leave the old one unchanged."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def temporary_beside(
    path: Path,  # final location of the file
) -> Path:
    """A unique hidden path in the same folder, with the same extension."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp{path.suffix}")


def remove_leftovers(
    folder: Path,  # need not exist
    prefix: str = "",  # of the final names; empty: all files
) -> None:
    """Remove temporary files left by a killed process. No other process may be writing such files in the folder."""
    for path in folder.glob(f".{prefix}*.tmp*"):
        with contextlib.suppress(OSError):
            path.unlink()


def existing_path(
    path: str | os.PathLike,  # of an input
) -> Path:
    """Return the path of a file or folder. Raises SganError if there is none, or if it is a pipe or a socket."""
    if not str(path):
        raise MisuseError("The name of the file or folder is empty.")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as e:
        raise SganError(f"{path} does not exist.", hint=suggest_path(Path(path))) from e
    except OSError as e:
        raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SganError(f"{path} is not a regular file.")
    return Path(path)


def suggest_path(
    path: Path,  # a path that does not exist
) -> str | None:
    """Hint at the path in the same folder with the most similar name."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(path.parent))
    return suggest(path.name, names, path.parent.joinpath) or None


def sync_folder(
    folder: Path,
) -> None:
    """Fsync a folder, so that new names in it survive a power cut, where the system supports it."""
    with contextlib.suppress(OSError):  # Windows and some network disks do not; the file itself is safe anyway
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def disk_full_reason(
    error: BaseException | None,  # raised by a write, possibly as the cause of another exception
) -> str | None:  # 'No space left on device' or 'Disk quota exceeded'
    """The system's message if a write failed because the disk was full; None if it failed for another reason."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return os.strerror(error.errno)
        error = error.__cause__
    return None


def wait_for_space(
    write: Callable[[], T],  # called again from the start until it succeeds
    what: str,  # for the messages: 'the snapshot in runs/00000-x'
    report: Callable[[str], object],  # called with one message when waiting starts, and one when it ends
    stop: Callable[[], bool],  # true: try once more, then give up
    interval: float = 5.0,  # seconds between attempts
) -> T:  # the result of `write`
    """Call ``write``, and again while the disk is full.

    Raises SganError if writing fails for another reason, or if the disk is still full once ``stop()`` is true.
    """
    waited = False
    while True:
        try:
            result = write()
        except (OSError, SganError) as e:
            reason = disk_full_reason(e)
            if reason is None or stop():
                if isinstance(e, SganError):
                    raise
                raise SganError(f"Cannot write {what}: {e.strerror or e}.") from e
            if not waited:
                try_report(report, f"No disk space for {what} ({reason}): training waits for space. Ctrl-C stops it.")
            waited = True
            deadline = time.monotonic() + interval
            while time.monotonic() < deadline and not stop():
                time.sleep(min(interval, 0.1))
        else:
            if waited:
                try_report(report, f"There is disk space for {what} again. Training continues.")
            return result


def try_report(
    report: Callable[[str], object],
    message: str,
) -> None:
    """Report a message, ignoring that the log, which also receives it, may be on the full disk."""
    with contextlib.suppress(OSError, SganError):
        report(message)


def open_tensors(
    path: Path,
) -> safe_open:
    """Open a safetensors file, also one whose path is not valid UTF-8, which the library cannot open by its name."""
    from safetensors import safe_open

    try:
        str(path).encode()
    except UnicodeEncodeError:
        with open(path, "rb") as f:
            return safe_open(f"/dev/fd/{f.fileno()}", framework="pt")
    return safe_open(path, framework="pt")
