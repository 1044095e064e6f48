"""Who holds a run's folder. The kernel gives a lock back when its process ends, however it ends."""

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
except ImportError:  # Windows: what counts is whether the recorded process lives
    fcntl = None

_NAME = ".lock"
_PATIENCE = 1.0  # seconds; whoever only looks whether a run is running holds its lock for an instant

_held: set[int] = set()  # file descriptors


@contextlib.contextmanager
def lock_run(
    folder: str | os.PathLike,  # of the run
) -> Iterator[None]:
    """Hold a run's folder alone. Raises SganError if another process holds it, or if it cannot be written."""
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
    """Whether a process holds the folder."""
    path = Path(folder) / _NAME
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(fd, path, alone=False)
    finally:
        os.close(fd)


def _take(path: Path) -> int:
    """The open lock file, locked and signed."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(fd, path, alone=True) and _is_file(fd, path):
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
        path.unlink()  # while it is held: whoever waits for it sees that the file is another by then
    os.close(fd)


def _lock(fd: int, path: Path, alone: bool) -> bool:
    """Try to lock the file, without waiting. Where nothing can be locked: whether its process is gone."""
    if fcntl is not None:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    host, pid = _holder(path)
    return pid is None or (host == socket.gethostname() and not _lives(pid))


def _is_file(fd: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False


def _holder(path: Path) -> tuple[str, int | None]:
    """Host and process that the file names; no process if it names none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads(path.read_bytes())
        return str(record["host"]), int(record["pid"])
    return "", None


def _lives(pid: int) -> bool:
    if os.name == "nt":  # where os.kill(pid, 0) would send Ctrl-C
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
        hint=f"Wait for it or stop it. If it is long gone, remove {path}.",
    )


def _forget() -> None:
    """In a forked child: it must not keep the lock when its parent is killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
