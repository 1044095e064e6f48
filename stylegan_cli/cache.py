"""A folder of results that take long to compute, so that each is computed once.

A file is named KEY-SHA256: the hash of everything that it depends on, and the hash of its content, which reveals
damage. A damaged file is ignored and made again. Files are written atomically; when several processes need the same
file, one makes it while the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import SganError
from .files import open_tensors, remove_leftovers, sync_folder, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

LOCK_NOTICE_DELAY = 3.0  # seconds of waiting for another process before a message
_BLOCK = 1 << 20  # bytes


class CacheEntry(NamedTuple):
    tensors: dict[str, Tensor]
    about: Any  # JSON value stored with them


def folder(
    kind: str = "",  # 'statistics', 'downloads' ...; empty: the parent of all kinds
) -> Path:
    """The cache folder for one kind of file, which may not exist: in SGAN_CACHE, else in the user's cache folder."""
    if chosen := os.environ.get("SGAN_CACHE"):
        return Path(chosen).expanduser().absolute() / kind
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root, "stylegan_cli", kind).absolute()


def places(kind: str) -> list[Path]:
    """The folders with one kind of file: the cache folder, and `temporary_folder` if that cannot be written. Files are
    looked for in all, and written to the last one."""
    place = nearest = folder(kind)
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return [place]
    temporary = temporary_folder()
    return [place, temporary / kind] if temporary else [place]


def temporary_folder() -> Path | None:
    """The folder to use if the cache is not writable: among the temporary files, and private, so that nobody else can
    plant a file. None if there is no such folder."""
    root = Path(tempfile.gettempdir(), f"stylegan_cli-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077)
    return root if stat.S_ISDIR(status.st_mode) and not foreign else None


def key(
    *inputs: Any,  # everything that the content depends on, as JSON values
) -> str:  # 64 hexadecimal digits
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def sha256_of(
    path: Path,
) -> str:  # 64 hexadecimal digits
    """Hash the content of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(
    path: Path,  # the file to make; the lock is a hidden file beside it, and the folder is created
    waiting: str,  # message for stderr if waiting takes long
) -> Iterator[None]:
    """Hold an exclusive lock between processes. It ends with the process that holds it, even if that is killed, and
    child processes do not inherit it. Raises OSError if the folder cannot be written or locked."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:
        # Without locks of the system, newer versions rely on the mere existence of a file, which outlives its process.
        options["fallback_to_soft"] = False
    file_lock = FileLock(path.with_name(f".{path.name}.lock"), **options)
    try:
        file_lock.acquire(timeout=LOCK_NOTICE_DELAY)
    except Timeout:
        print(waiting, file=sys.stderr, flush=True)
        file_lock.acquire()
    except NotImplementedError as e:  # some file systems have no locks
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from e
    try:
        yield
    finally:
        file_lock.release()


@contextlib.contextmanager
def claim(
    kind: str,
    *keys: str,
) -> Iterator[None]:
    """Be the only process that makes these files. Look for them inside the block: another process may have made them
    in the meantime.

    If nothing can be written or locked, each process makes its own files.
    """
    place = places(kind)[-1]
    with contextlib.ExitStack() as locks:
        for name in sorted(set(keys)):  # the same order in every process, against deadlocks
            with contextlib.suppress(OSError):
                waiting = f"Another process is computing these {kind}; waiting for it."
                locks.enter_context(lock(place / name, waiting))
                remove_leftovers(place, name)
        yield


def find(
    kind: str,
    key: str,
) -> Path | None:
    """The file with this key, if it is present and undamaged."""
    for place in places(kind):
        for path in place.glob(f"{key}-*"):
            with contextlib.suppress(OSError):  # just replaced, or not readable
                if path.stem == f"{key}-{sha256_of(path)}":
                    return path
    return None


def load(
    kind: str,
    key: str,
) -> CacheEntry | None:
    """The tensors with this key, if they are present and undamaged."""
    if (path := find(kind, key)) is not None:
        with contextlib.suppress(OSError), open_tensors(path) as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
            return CacheEntry(tensors, json.loads(f.metadata()["about"]))
    return None


def store(
    kind: str,
    key: str,
    tensors: dict[str, Tensor],  # on the CPU
    about: Any = None,  # JSON value to store with them
) -> Path:
    """Store tensors under a key. Raises SganError if the cache is not writable."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {"about": json.dumps(about)})
    return store_file(kind, key, lambda path: write_atomic(path, content))


def store_file(
    kind: str,
    key: str,
    write: Callable[[Path], object],  # called with the path of a .safetensors file, which it must write atomically
) -> Path:
    """Store a file under a key, replacing older ones, in the last of `places`. Raises SganError if that is not
    possible."""
    place = places(kind)[-1]
    draft = place / f"{key}.safetensors"
    write(draft)
    try:
        path = draft.with_stem(f"{key}-{sha256_of(draft)}")
        os.replace(draft, path)
        sync_folder(path.parent)
        for other in set(place.glob(f"{key}-*")) - {path}:
            other.unlink(missing_ok=True)
    except OSError as e:
        raise SganError(f"Cannot write {draft}: {e.strerror or e}.") from e
    return path
