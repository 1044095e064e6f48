"""Locks of run folders. The system releases a lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import SganError

try:
    import fcntl
except ImportError:  # Windows: check whether the recorded process is alive
    fcntl = None

_NAME = ".lock"
_TIMEOUT = 1.0  # seconds; `is_running` holds the lock for an instant

_held: set[int] = set()  # file descriptors


@contextlib.contextmanager
def lock_run(
    folder: str | os.PathLike,  # of the run
) -> Iterator[None]:
    """Lock a run folder. Raises SganError if another process has locked it, or if it cannot be written."""
    path = Path(folder) / _NAME
    try:
        fd = _take(path)
    except OSError as e:
        raise SganError(f"Cannot write {path}: {e.strerror or e}.") from e
    _held.add(fd)
    try:
        yield
    finally:
        if fd in _held:
            _release(fd, path)


def is_running(
    folder: str | os.PathLike,  # of a run
) -> bool:
    """Whether a process has locked the folder."""
    path = Path(folder) / _NAME
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(fd, path, exclusive=False)
    finally:
        os.close(fd)


def _take(path: Path) -> int:
    """Open and lock the lock file, and write host and process into it."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(fd, path, exclusive=True) and _is_current(fd, path):
                os.ftruncate(fd, 0)
                os.write(fd, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
                return fd
            if time.monotonic() > deadline:
                raise _in_use(path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        time.sleep(0.05)


def _release(fd: int, path: Path) -> None:
    _held.discard(fd)
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        path.unlink()  # before the release: a waiting process then sees that the file was replaced
    os.close(fd)


def _lock(fd: int, path: Path, exclusive: bool) -> bool:
    """Try to lock the file without waiting. On file systems without locks, whether its process has ended."""
    if fcntl is not None:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    host, pid = _holder(path)
    return pid is None or (host == socket.gethostname() and not _is_alive(pid))


def _is_current(fd: int, path: Path) -> bool:
    """Whether the open file is still the file at the path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False


def _holder(path: Path) -> tuple[str, int | None]:
    """The host and process in the file; None if it has none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads(path.read_bytes())
        return str(record["host"]), int(record["pid"])
    return "", None


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # os.kill(pid, 0) would send Ctrl-C
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x100000, False, pid)  # SYNCHRONIZE
        ended = not handle or kernel.WaitForSingleObject(handle, 0) == 0
        kernel.CloseHandle(handle)
        return not ended
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _in_use(path: Path) -> SganError:
    host, pid = _holder(path)
    who = "another process" if pid is None else f"process {pid} on host {host}"
    return SganError(
        f"The run in {path.parent} is in use by {who}.",
        hint=f"Wait for it or stop it. If it has ended, remove {path}.",
    )


def _release_in_child() -> None:
    """Close the locks in a forked child, which must not keep them when its parent is killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
