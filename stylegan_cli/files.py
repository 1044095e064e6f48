"""Files that appear whole or not at all, and writers that wait for room."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .errors import SganError, nearest

if TYPE_CHECKING:
    from safetensors import safe_open

T = TypeVar("T")


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike,  # where the file shall stand in the end
) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well it is fsynced and renamed to ``path``,
    and the folder is fsynced, so that the new file is there after a power cut too.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is untouched.
    Raises SganError with one sentence if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = temporary_beside(path)  # named before it is made: whenever a signal comes, there is a name to remove
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
        with contextlib.suppress(OSError):  # a folder that is none, or is gone
            temporary.unlink()


def check_writable(
    folder: Path,  # made if it is not there
) -> None:
    """Raises SganError if no file can be written there: before long work, not after it."""
    probe = temporary_beside(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as e:
        raise SganError(f"Cannot write into {folder}: {e.strerror or e}.") from e


def write_atomic(
    path: str | os.PathLike,
    content: str | bytes,  # text is written as UTF-8, with undecodable bytes of file names as escapes
) -> None:
    """Write a whole file at once, or leave the old one as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def temporary_beside(
    path: Path,  # where the file shall stand in the end
) -> Path:
    """A hidden name that nobody else uses, with the same ending."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp{path.suffix}")


def remove_leftovers(
    folder: Path,  # need not exist
    beginning: str = "",  # only of files whose names would have begun like this
) -> None:
    """Remove the temporary files of a process that was killed. No other process may be writing such files there."""
    for path in folder.glob(f".{beginning}*.tmp*"):
        with contextlib.suppress(OSError):
            path.unlink()


def nearest_path(
    path: Path,  # that there is not
) -> str | None:
    """Which one in the same folder may be meant, as a hint."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(path.parent))
    return nearest(path.name, names, path.parent.joinpath) or None


def sync_folder(
    folder: Path,
) -> None:
    """Make the names in a folder survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows and some network disks cannot; the file itself is there all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def no_room(
    error: BaseException | None,  # what a write raised
) -> str | None:  # 'No space left on device', 'Disk quota exceeded'
    """Why a write found no room, if it is that what it failed of; `atomic_path`'s SganError is seen through."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return os.strerror(error.errno)
        error = error.__cause__
    return None


def wait_for_space(
    write: Callable[[], T],  # called again from its beginning until it succeeds
    what: str,  # 'the snapshot in runs/00000-x': for the sentence
    say: Callable[[str], object],  # told once that there is no room, and once that it goes on
    stop: Callable[[], bool],  # true: try once more, then give up
    every: float = 5.0,  # seconds between attempts
) -> T:
    """Write; on a full disk wait for room. Raises SganError on any other failure, and on this one once ``stop()``."""
    waited = False
    while True:
        try:
            done = write()
        except (OSError, SganError) as e:
            reason = no_room(e)
            if reason is None or stop():
                if isinstance(e, SganError):
                    raise
                raise SganError(f"Cannot write {what}: {e.strerror or e}.") from e
            if not waited:
                tell(say, f"There is no room for {what} ({reason}): training waits until there is; Ctrl-C stops it.")
            waited = True
            until = time.monotonic() + every
            while time.monotonic() < until and not stop():
                time.sleep(min(every, 0.1))
        else:
            if waited:
                tell(say, f"There is room for {what} again: training is going on.")
            return done


def tell(
    say: Callable[[str], object],
    sentence: str,
) -> None:
    """Say it, even if the log that also takes it is on the full disk."""
    with contextlib.suppress(OSError, SganError):
        say(sentence)


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
