"""Results files that grow by one row for each finished run, and to which several processes can add rows."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _results import command_line, machine

from stylegan_cli.errors import SganError
from stylegan_cli.files import check_writable, write_atomic

Row = dict[str, Any]
NAME = ("op", "case", "data", "seed", "seconds")  # fields that tell rows of a file apart
IDENTITY = (*NAME, "settings", "images")  # a run with other settings replaces the row of the same name


class Rows:
    """The rows of a results file. Each is in the entry of the command that measured it."""

    def __init__(
        self,
        path: Path | None,  # need not exist; None: rows are only kept in memory
    ):
        self.path, self._entries, self._lock = path, [], None
        if path is not None:
            check_writable(path.parent)
            # One descriptor for the life of the process: closing any of them would release all its locks.
            self._lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
            self._read()

    def find(self, run: Row) -> Row | None:
        """The row of a run with these names and settings, if it is finished."""
        self._read()
        return next((row for row in self.all() if _values(row, IDENTITY) == _values(run, IDENTITY)), None)

    def all(self) -> list[Row]:
        return [row for entry in self._entries for row in entry["rows"]]

    @contextlib.contextmanager
    def claim(self, run: Row) -> Iterator[bool]:
        """Keep other processes from working on a run; False if one of them does. A killed process has no claims."""
        if self._lock is None:
            yield True
            return
        place = 1 + zlib.crc32(json.dumps(_values(run, NAME)).encode())
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, place)

    def add(self, row: Row) -> None:
        """Add a row, in place of one with the same names."""
        if self._lock is not None:
            fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, 0)  # the first byte stands for the file
        try:
            self._read()
            for entry in self._entries:
                entry["rows"] = [old for old in entry["rows"] if _values(old, NAME) != _values(row, NAME)]
            self._entry()["rows"].append(json.loads(json.dumps(row)))
            self._entries = [entry for entry in self._entries if entry["rows"]]
            if self.path is not None:
                write_atomic(self.path, json.dumps(self._entries, indent=1) + "\n")
        finally:
            if self._lock is not None:
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, 0)

    def _entry(self) -> dict[str, Any]:
        """The entry of this command on this machine with this version of the program."""
        command, facts = command_line(sys.argv), machine(torch.device("cpu"))
        undated = {name: value for name, value in facts.items() if name != "date"}
        for entry in self._entries:
            if entry["command"] == command and undated.items() <= entry["machine"].items():
                entry["machine"]["date"] = datetime.datetime.now().isoformat(timespec="seconds")
                return entry
        self._entries.append({"command": command, "machine": facts, "rows": []})
        return self._entries[-1]

    def _read(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            self._entries = json.loads(self.path.read_text(encoding="utf-8"))
            known = isinstance(self._entries, list) and all(set(NAME) <= row.keys() for row in self.all())
        except (ValueError, TypeError, LookupError, AttributeError):
            known = False
        if not known:
            raise SganError(f"{self.path} has no rows of training runs.", hint="Choose another file with --out.")


def _values(row: Row, names: tuple[str, ...]) -> Row:
    """Some fields as they are in a file."""
    return json.loads(json.dumps({name: row[name] for name in names}))
