"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import SganError


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike,  # where the file shall stand in the end
) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well it is fsynced and renamed to ``path``.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is untouched.
    Raises SganError with one sentence if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    # Named before it is made: whenever a signal comes, there is a name to remove.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise SganError(f"Cannot write {path}: {e.strerror or e}.") from e
    finally:
        with contextlib.suppress(OSError):  # a folder that is none, or is gone
            temporary.unlink()


def write_atomic(
    path: str | os.PathLike,
    content: str | bytes,  # text is written as UTF-8
) -> None:
    """Write a whole file at once, or leave the old one as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
