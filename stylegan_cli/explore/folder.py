"""The output folder: all that the page can reach of the file system."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from ..errors import SganError
from ..files import write_atomic

MEDIA = {
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".npz": "application/octet-stream",
}
_PLAIN = "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
_NAME = re.compile(f"(?:{_PLAIN}/)?{_PLAIN}")


class Folder:
    """A folder; files in it, or one folder deeper, have plain names, and nothing else can be named."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def find(
        self,
        name: object,
        *suffixes: str,  # allowed ones
    ) -> Path:
        """The path of an existing file. Raises SganError if there is none, or the name is not a plain one."""
        if isinstance(name, str) and _NAME.fullmatch(name) and Path(name).suffix in suffixes:
            path = self.path / name
            if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                return path
        message = f"There is no file {str(name)[:100]!r} in the output folder."
        raise SganError(message, hint="Choose one that is listed.")

    def list(
        self,
        pattern: str,  # '*.npz'
        without: str = "/",  # beginning of names to omit
    ) -> list[str]:
        """The names that `find` takes, of the newest file first."""
        found = []
        for path in [*self.path.glob(pattern), *self.path.glob(f"*/{pattern}")]:
            name = path.relative_to(self.path).as_posix()
            if path.name.startswith(without):
                continue
            with contextlib.suppress(SganError, OSError):
                found.append((self.find(name, path.suffix).stat().st_mtime_ns, name))
        return [name for _, name in sorted(found, reverse=True)]

    def new(
        self,
        stem: str,
        suffix: str,
    ) -> Path:
        """The path `<stem>-<number>`, without suffix, of a new file, which is created empty, so that nobody else gets
        it; no file with another suffix has this name either."""
        self.path.mkdir(parents=True, exist_ok=True)
        taken = [int(m[1]) for p in self.path.iterdir() if (m := re.match(rf"{re.escape(stem)}-(\d{{4,}})\b", p.name))]
        number = max(taken, default=0) + 1
        while True:
            path = self.path / f"{stem}-{number:04d}"
            try:
                path.with_name(path.name + suffix).touch(exist_ok=False)
                return path
            except FileExistsError:
                number += 1

    def new_folder(
        self,
        stem: str,
    ) -> Path:
        """A new folder `<stem>-<number>`."""
        self.path.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = self.path / f"{stem}-{number:02d}"
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1

    def add(
        self,
        stem: str,
        suffix: str,
        content: bytes,
    ) -> Path:
        """Write a new file `<stem>-<number><suffix>`."""
        path = self.new(stem, suffix)
        path = path.with_name(path.name + suffix)
        write_atomic(path, content)
        return path
