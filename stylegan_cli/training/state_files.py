"""Training states as files: complete, checksummed, written atomically.

The name is state-<kimg>-<first 16 digits of the file's SHA-256>.safetensors, so that `sha256sum` can check it by hand.
The header's metadata: `format`; `state`, everything but the tensors, as JSON with their names; `about`, about the run.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ..cache import sha256_of
from ..errors import SganError
from ..files import (
    disk_full_reason,
    open_tensors,
    remove_leftovers,
    sync_folder,
    temporary_beside,
    try_report,
    wait_for_space,
)
from ..runs import snapshot_name
from ..version import __version__
from .state_format import decode, encode, file_layout

FORMAT = "stylegan_cli-state/1"
DAMAGED = ".damaged"  # appended to the name of a damaged file

_NAME = re.compile(r"state-([0-9]{6,}(?:\.[0-9]{3})?)-([0-9a-f]{16})\.safetensors")
_CHUNK = 2**24  # bytes hashed and written at a time


class DamagedStateError(SganError):
    """The content of the file has changed since it was written."""


# ------------------------------------------------------------------------------------------- writing


class StateWriter:
    """Writes states in a background thread. No other process may write states to the same folder."""

    every = 5.0  # seconds between attempts on a full disk

    def __init__(
        self,
        folder: str | os.PathLike,  # of the run
        keep: int = 2,  # number of states to keep; older ones are deleted once a newer one is safe
        notify: Callable[[str], object] = lambda line: print(line, file=sys.stderr),  # called in the caller's thread
    ):
        self.folder, self.keep, self.notify = Path(folder), keep, notify
        self._memory = _HostMemory()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._messages: deque[str] = deque()  # from the thread
        self._blocked = False
        self._given_up = threading.Event()
        remove_leftovers(self.folder, "state-")

    @property
    def blocked(self) -> bool:
        """Whether a state is waiting for disk space."""
        return self._blocked

    def save(
        self,
        state: dict[str, Any],  # from `gather`; may change as soon as this returns
        about: dict[str, Any],  # for `read_about`, JSON; kimg, shown and version are added
        shown: int,  # images so far
        stop: Callable[[], bool] = lambda: False,  # true: stop waiting for disk space for the previous state
    ) -> None:
        """Wait for the previous write, copy the state, and start writing it.

        Raises SganError if the previous write failed for another reason than a full disk, TypeError if the state holds
        a value that cannot be saved.
        """
        self._finish(stop)
        if disk_full_reason(self._error):
            self._error = None  # the new state replaces it
        self._raise_error()
        about = about | {"kimg": shown / 1000, "shown": shown, "version": __version__}
        tensors: dict[str, Tensor] = {}
        texts = {"format": FORMAT, "about": json.dumps(about), "state": json.dumps(encode(state, tensors))}
        header, ranges = file_layout(tensors, texts)
        arguments = (_kimg(shown), header, self._memory.copy(tensors, ranges))
        # A daemon, so that a second Ctrl-C does not wait for the disk.
        self._thread = threading.Thread(target=self._write_in_thread, args=arguments, name="state writer", daemon=True)
        self._thread.start()

    def pause_if_blocked(
        self,
        stop: Callable[[], bool],  # true: stop waiting, and from now on try a full disk only once
    ) -> None:
        """Call once per step. Returns at once, or on a full disk when the state is written or ``stop()`` is true."""
        while self._blocked:
            self._send_messages()
            if stop():
                self.give_up()
                return
            if self._thread is not None:
                self._thread.join(0.1)
        self._send_messages()

    def wait(
        self,
        stop: Callable[[], bool] = lambda: False,  # true: stop waiting for disk space
    ) -> None:
        """Wait until the state is written. Raises SganError if writing failed."""
        self._finish(stop)
        self._raise_error()

    def give_up(self) -> None:
        """From now on, try a full disk once instead of waiting for space."""
        self._given_up.set()

    def close(self) -> None:
        """Finish a write in progress without waiting for disk space. Errors are reported, not raised, as raising could
        hide the reason for closing. Call `wait` first where a failure matters."""
        self.give_up()
        self._finish(lambda: True)
        if self._error is not None:
            try_report(self.notify, str(self._error))
        self._error, self._memory = None, _HostMemory()

    def _finish(self, stop: Callable[[], bool]) -> None:
        while self._thread is not None and self._thread.is_alive():
            self.pause_if_blocked(stop)
            self._thread.join(0.1)
        self._send_messages()

    def _send_messages(self) -> None:
        while self._messages:
            try_report(self.notify, self._messages.popleft())

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_in_thread(self, kimg: str, header: bytes, content: memoryview) -> None:
        def on_message(message: str) -> None:
            self._messages.append(message)
            self._blocked = True

        description = f"the training state in {self.folder}"
        try:
            write = functools.partial(self._write, kimg, header, content)
            wait_for_space(write, description, on_message, self._given_up.is_set, self.every)
        except BaseException as e:  # raised by the next `save` or `wait`
            self._error = e
        finally:
            self._blocked = False

    def _write(self, kimg: str, header: bytes, content: memoryview) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(self.folder / f"state-{kimg}.safetensors")
        try:
            path = self.folder / f"state-{kimg}-{_write_file(temporary, header, content)}.safetensors"
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        sync_folder(self.folder)
        others = [p for p in list_states(self.folder) if p != path]
        for old in others[max(self.keep, 1) - 1 :]:
            with contextlib.suppress(OSError):  # an extra state is harmless
                old.unlink()


class _HostMemory:
    """Memory for a copy of the tensors, reused by every save: allocating a gigabyte takes longer than the copy."""

    def __init__(self):
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def copy(
        self,
        tensors: dict[str, Tensor],
        ranges: dict[str, slice],  # name -> byte range
    ) -> memoryview:
        size = max((r.stop for r in ranges.values()), default=0)
        devices = {t.device for t in tensors.values() if t.is_cuda}
        if self._buffer.numel() < size:
            self._buffer = torch.empty(0, dtype=torch.uint8)  # free the old one first
            self._buffer = _empty(size, pinned=bool(devices))
        for name, byte_range in ranges.items():
            tensor = tensors[name].detach()
            target = self._buffer[byte_range].view(tensor.dtype).view(tensor.shape)
            target.copy_(tensor, non_blocking=tensor.is_cuda)
        for device in devices:
            torch.cuda.synchronize(device)
        return self._buffer[:size].numpy().data


def _empty(size: int, pinned: bool) -> Tensor:  # uint8 [size]
    if pinned:
        with contextlib.suppress(RuntimeError):  # pinned memory may be limited; the copy is then only slower
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return torch.empty(size, dtype=torch.uint8)


def _write_file(path: Path, header: bytes, content: memoryview) -> str:  # first 16 digits of the SHA-256
    digest = hashlib.sha256()
    with open(path, "xb") as f:
        for chunk in (header, *(content[i : i + _CHUNK] for i in range(0, len(content), _CHUNK))):
            _put(f, chunk)
            digest.update(chunk)
        f.flush()
        os.fsync(f.fileno())
    return digest.hexdigest()[:16]


def _put(f: Any, chunk: bytes | memoryview) -> None:
    """The one place where bytes go to the disk; tests make it fail."""
    f.write(chunk)


def _kimg(shown: int) -> str:
    return snapshot_name(shown / 1000).removeprefix("snapshot-").removesuffix(".safetensors")


# ------------------------------------------------------------------------------------------- reading


def list_states(
    folder: str | os.PathLike,  # of a run; need not exist
) -> list[Path]:
    """List the states of a run, newest first: by images shown, then by time. Reads only the names."""
    matches = [(m, p) for p in Path(folder).glob("state-*") if (m := _NAME.fullmatch(p.name))]
    return [p for m, p in sorted(matches, key=lambda f: (float(f[0][1]), _modified_ns(f[1])), reverse=True)]


def read_about(
    path: str | os.PathLike,
) -> dict[str, Any]:  # recipe, config, kimg, shown, ranks, version
    """Read the header only, without verifying the checksum. Raises as `read_state` does."""
    with _reading(Path(path)), _open(Path(path)) as f:
        return json.loads(f.metadata()["about"])


def read_state(
    path: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, Any]]:  # the state that was passed to `save`, on the CPU; see `read_about`
    """Read and verify a state. Raises DamagedStateError if the file has changed since it was written, SganError if it
    is missing or not a state."""
    path = Path(path)
    if not (name := _NAME.fullmatch(path.name)):
        raise SganError(f"{path} is not a training state. States are named state-<kimg>-<checksum>.safetensors.")
    with _reading(path):
        if sha256_of(path)[:16] != name[2]:
            raise DamagedStateError(f"{path} is damaged: its content does not match the checksum in its name.")
        with _open(path) as f:
            texts = f.metadata()
            # Copies, so that the tensors do not depend on the file.
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}  # noqa: SIM118 (not a dict)
        return decode(json.loads(texts["state"]), tensors), json.loads(texts["about"])


def load_newest(
    folder: str | os.PathLike,  # of a run
    notify: Callable[[str], object],  # called with a sentence about damaged files, if there are any
) -> tuple[dict[str, Any], dict[str, Any], Path] | None:
    """Read the newest undamaged state with `read_state` and return it with its path; None if the run has no states.

    Damaged files are renamed to `.damaged`. Raises SganError if all states are damaged.
    """
    damaged: list[Path] = []
    for path in list_states(folder):
        try:
            state, about = read_state(path)
        except DamagedStateError:
            with contextlib.suppress(OSError):  # the folder may be read-only
                path.rename(path.with_name(path.name + DAMAGED))
            damaged.append(path)
            continue
        if damaged:
            names = ", ".join(p.name for p in damaged)
            try_report(notify, f"Damaged training states, renamed to *{DAMAGED}: {names}. Using {path.name} instead.")
        return state, about, path
    if damaged or any(Path(folder).glob(f"state-*{DAMAGED}")):
        hint = "Start a new run. A model can be its start: sgan train --resume SNAPSHOT"
        raise SganError(f"All training states in {folder} are damaged.", hint=hint)
    return None


@contextlib.contextmanager
def _reading(path: Path):
    """Turn any error into an SganError with the path."""
    try:
        yield
    except OSError as e:
        if e.errno == errno.EIO:
            raise DamagedStateError(f"{path} is damaged: {e.strerror}.") from e
        raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e  # may be temporary: not damaged
    except safetensors.SafetensorError as e:
        raise DamagedStateError(f"{path} is damaged: {e}.") from e
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as e:
        raise DamagedStateError(f"{path} is damaged: its header is invalid ({type(e).__name__}: {e}).") from e


def _open(path: Path) -> safetensors.safe_open:
    f = open_tensors(path)
    if (file_format := (f.metadata() or {}).get("format")) != FORMAT:
        raise SganError(f"{path} is not a training state that this version can read (its format is {file_format}).")
    return f


def _modified_ns(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a running training removes old states
        return path.stat().st_mtime_ns
    return 0
