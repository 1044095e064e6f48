"""What took long to make, kept in one folder so that it is made once.

A kept file is named KEY-SHA256: by the hash of all that it depends on, and by that of its content, which tells whether
it is whole. A damaged one counts as none and is made anew. Files appear whole, and of several processes that want the
same one, one makes it while the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
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

PATIENCE = 3.0  # seconds of waiting for another process before it is said what for
_BLOCK = 1 << 20


class Kept(NamedTuple):
    tensors: dict[str, Tensor]
    about: Any  # what JSON can hold


def folder(
    kind: str = "",  # 'statistics', 'downloads' ...; empty: all of them
) -> Path:
    """Where files of a kind are kept: in SGAN_CACHE, else in stylegan_cli in the user's folder of caches. It need not
    exist."""
    if chosen := os.environ.get("SGAN_CACHE"):
        return Path(chosen).expanduser().absolute() / kind
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root, "stylegan_cli", kind).absolute()


def temporary_folder() -> Path | None:
    """What stands in for the cache where that cannot be written: a folder among the temporary files, private so that
    nobody else can plant a file. None if there is no such folder."""
    root = Path(tempfile.gettempdir(), f"stylegan_cli-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077)
    return root if stat.S_ISDIR(status.st_mode) and not foreign else None


def key(
    *depends: Any,  # everything that the content depends on, as JSON can hold it
) -> str:  # 64 hexadecimal digits
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def sha256_of(
    path: Path,
) -> str:  # 64 hexadecimal digits
    """The hash of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(
    path: Path,  # of what is made; the lock is a hidden file beside it, and its folder is made
    waiting: str,  # said on stderr when it takes long
) -> Iterator[None]:
    """Be the only process that makes this. The lock ends with its holder, however that ends; no program started
    meanwhile inherits it. Raises OSError where nothing can be written or locked."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        held.acquire(timeout=PATIENCE)
    except Timeout:
        print(waiting, file=sys.stderr, flush=True)
        held.acquire()
    except NotImplementedError as e:  # some disks know no locks
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from e
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def claim(
    kind: str,
    *keys: str,
) -> Iterator[None]:
    """Be the only process that makes these files: look for them within, another process may have made them meanwhile.

    Where nothing can be written nothing is claimed: then each process makes its own.
    """
    with contextlib.ExitStack() as locks:
        for name in sorted(set(keys)):  # in the same order everywhere: no two processes wait for each other
            with contextlib.suppress(OSError):
                locks.enter_context(lock(folder(kind) / name, f"Another process makes these {kind}; waiting for it."))
                remove_leftovers(folder(kind), name)
        yield


def find(
    kind: str,
    key: str,
) -> Path | None:
    """The file that is kept under this key, if it is whole."""
    temporary = None if _is_writable() else temporary_folder()
    for place in (folder(kind), *([temporary / kind] if temporary else [])):
        for path in place.glob(f"{key}-*"):
            with contextlib.suppress(OSError):  # it has just been replaced, or cannot be read
                if path.stem == f"{key}-{sha256_of(path)}":
                    return path
    return None


def load(
    kind: str,
    key: str,
) -> Kept | None:
    """The tensors that are kept under this key, if they are whole."""
    if (path := find(kind, key)) is not None:
        with contextlib.suppress(OSError), open_tensors(path) as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no dict)
            return Kept(tensors, json.loads(f.metadata()["about"]))
    return None


def store(
    kind: str,
    key: str,
    tensors: dict[str, Tensor],  # on the CPU
    about: Any = None,  # what JSON can hold
) -> Path:
    """Keep tensors under this key. Raises SganError where that cannot be written."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {"about": json.dumps(about)})
    return store_file(kind, key, lambda path: write_atomic(path, content))


def store_file(
    kind: str,
    key: str,
    write: Callable[[Path], object],  # called with the path of a .safetensors file that it writes atomically
) -> Path:
    """Keep a file under this key, instead of what was kept under it; in `temporary_folder` where the cache cannot be
    written. Raises SganError if neither can."""
    try:
        return _store_in(folder(kind), key, write)
    except SganError:
        if (temporary := temporary_folder()) is None:
            raise
        return _store_in(temporary / kind, key, write)


def _is_writable() -> bool:
    """Whether the cache exists, or its nearest parent that does, and can be written."""
    place = folder()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK)


def _store_in(place: Path, key: str, write: Callable[[Path], object]) -> Path:
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
