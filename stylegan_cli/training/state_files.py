"""Training states as files: complete, checked, and never half there.

state-<kimg>-<first 16 digits of the file's SHA-256>.safetensors, so that `sha256sum` tells by hand what reading checks.
The header's texts: `format`; `state`, everything but the tensors, as JSON that names them; `about`, of the run.
"""

from __future__ import annotations

import contextlib
import errno
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
from ..files import no_room, remove_leftovers, sync_folder, tell, temporary_beside, wait_for_space
from ..runs import snapshot_name
from ..version import __version__
from .state_format import freeze, layout, thaw

FORMAT = "stylegan_cli-state/1"
DAMAGED = ".damaged"  # is appended to the name of a file that cannot be used

_NAME = re.compile(r"state-([0-9]{6,}(?:\.[0-9]{3})?)-([0-9a-f]{16})\.safetensors")
_CHUNK = 2**24  # bytes that are hashed and written at a time


class DamagedState(SganError):
    """The file is not as it was written."""


# ------------------------------------------------------------------------------------------- writing


class StateWriter:
    """Writes states in a thread, while training goes on. No other process may be writing states to the folder."""

    every = 5.0  # seconds between attempts on a full disk

    def __init__(
        self,
        folder: str | os.PathLike,  # of the run
        keep: int = 2,  # states that stay; older ones go when a newer one is safe
        say: Callable[[str], object] = lambda line: print(line, file=sys.stderr),  # called in the caller's thread only
    ):
        self.folder, self.keep, self.say = Path(folder), keep, say
        self._memory = _HostMemory()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._untold: deque[str] = deque()  # sentences from the thread
        self._blocked = False
        self._given_up = threading.Event()
        remove_leftovers(self.folder, "state-")

    @property
    def blocked(self) -> bool:
        """Whether a state waits for room on the disk."""
        return self._blocked

    def save(
        self,
        state: dict[str, Any],  # what `gather` gave; may change as soon as this returns
        about: dict[str, Any],  # what `read_about` shall tell; JSON. kimg, shown and version are added
        shown: int,  # images so far
        stop: Callable[[], bool] = lambda: False,  # true: wait no longer for room for the previous state
    ) -> None:
        """Wait for the previous write, copy the state, and begin to write it.

        Raises SganError if the previous write failed for anything but lack of room, TypeError if the state holds what
        no file can.
        """
        self._finish(stop)
        if no_room(self._error):
            self._error = None  # this state is newer
        self._raise()
        about = about | {"kimg": shown / 1000, "shown": shown, "version": __version__}
        tensors: dict[str, Tensor] = {}
        texts = {"format": FORMAT, "about": json.dumps(about), "state": json.dumps(freeze(state, tensors))}
        header, places = layout(tensors, texts)
        arguments = (_kimg(shown), header, self._memory.copy(tensors, places))
        # A daemon: a process that was told twice to stop does not wait for a disk.
        self._thread = threading.Thread(target=self._work, args=arguments, name="state writer", daemon=True)
        self._thread.start()

    def pause_if_blocked(
        self,
        stop: Callable[[], bool],  # true: wait no longer, and don't try the full disk more than once from now on
    ) -> None:
        """To be called once a step. Returns at once; on a full disk when the state is written or ``stop()``."""
        while self._blocked:
            self._tell()
            if stop():
                self.give_up()
                return
            if self._thread is not None:
                self._thread.join(0.1)
        self._tell()

    def wait(
        self,
        stop: Callable[[], bool] = lambda: False,  # true: wait no longer for room on a full disk
    ) -> None:
        """Until the state is written. Raises SganError if it could not be."""
        self._finish(stop)
        self._raise()

    def give_up(self) -> None:
        """From now on a full disk is tried once and not waited for."""
        self._given_up.set()

    def close(self) -> None:
        """End a write that is under way, but don't wait for room. Says what went wrong: raising might hide the reason
        for closing. Call `wait` first where a failure matters."""
        self.give_up()
        self._finish(lambda: True)
        if self._error is not None:
            tell(self.say, str(self._error))
        self._error, self._memory = None, _HostMemory()

    def _finish(self, stop: Callable[[], bool]) -> None:
        while self._thread is not None and self._thread.is_alive():
            self.pause_if_blocked(stop)
            self._thread.join(0.1)
        self._tell()

    def _tell(self) -> None:
        while self._untold:
            tell(self.say, self._untold.popleft())

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self, kimg: str, header: bytes, content: memoryview) -> None:
        def hear(sentence: str) -> None:
            self._untold.append(sentence)
            self._blocked = True

        what = f"the training state in {self.folder}"
        try:
            wait_for_space(lambda: self._write(kimg, header, content), what, hear, self._given_up.is_set, self.every)
        except BaseException as e:  # whatever it is: the next `save` or `wait` raises it
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
            with contextlib.suppress(OSError):  # one too many is no reason to fail
                old.unlink()


class _HostMemory:
    """Memory for a copy of the tensors, the same from save to save: to get a fresh gigabyte from the system takes
    longer than the copy."""

    def __init__(self):
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def copy(
        self,
        tensors: dict[str, Tensor],
        places: dict[str, slice],  # of each tensor's bytes
    ) -> memoryview:
        size = max((place.stop for place in places.values()), default=0)
        devices = {t.device for t in tensors.values() if t.is_cuda}
        if self._buffer.numel() < size:
            self._buffer = torch.empty(0, dtype=torch.uint8)  # first let go of the old one
            self._buffer = _empty(size, pinned=bool(devices))
        for name, place in places.items():
            tensor = tensors[name].detach()
            target = self._buffer[place].view(tensor.dtype).view(tensor.shape)
            target.copy_(tensor, non_blocking=tensor.is_cuda)
        for device in devices:
            torch.cuda.synchronize(device)
        return self._buffer[:size].numpy().data


def _empty(size: int, pinned: bool) -> Tensor:  # uint8 [size]
    if pinned:
        with contextlib.suppress(RuntimeError):  # the system may allow little of it; the copy is then only slower
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return torch.empty(size, dtype=torch.uint8)


def _write_file(path: Path, header: bytes, content: memoryview) -> str:  # the digits for its name
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
    """The states of a run, newest first: by images shown, then by time. Only names are looked at."""
    found = [(m, p) for p in Path(folder).glob("state-*") if (m := _NAME.fullmatch(p.name))]
    return [p for m, p in sorted(found, key=lambda f: (float(f[0][1]), _written(f[1])), reverse=True)]


def read_about(
    path: str | os.PathLike,
) -> dict[str, Any]:  # recipe, config, kimg, shown, ranks, version
    """The header alone, unchecked but for its form. Raises as `read_state` does."""
    with _reading(Path(path)), _open(Path(path)) as f:
        return json.loads(f.metadata()["about"])


def read_state(
    path: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, Any]]:  # the state, as it was given to `save`, on the CPU; what `read_about` tells
    """Raises DamagedState if the file is not as it was written, SganError if it is missing or no state."""
    path = Path(path)
    if not (name := _NAME.fullmatch(path.name)):
        raise SganError(f"{path} is no training state: their names are state-<kimg>-<checksum>.safetensors.")
    with _reading(path):
        if sha256_of(path)[:16] != name[2]:
            raise DamagedState(f"{path} is damaged: its content does not fit the checksum in its name.")
        with _open(path) as f:
            texts = f.metadata()
            # Copies: the tensors shall not depend on the file any longer.
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}  # noqa: SIM118 (no dict)
        return thaw(json.loads(texts["state"]), tensors), json.loads(texts["about"])


def load_newest(
    folder: str | os.PathLike,  # of a run
    say: Callable[[str], object],  # told which files are damaged, and what is taken instead
) -> tuple[dict[str, Any], dict[str, Any], Path] | None:
    """The newest state that is whole, as `read_state` gives it, and its file; None if the run has no states.

    Damaged ones are set aside (`.damaged`). Raises SganError if there are none but damaged ones.
    """
    damaged: list[Path] = []
    for path in list_states(folder):
        try:
            found = (*read_state(path), path)
        except DamagedState:
            with contextlib.suppress(OSError):  # a folder that cannot be written
                path.rename(path.with_name(path.name + DAMAGED))
            damaged.append(path)
            continue
        if damaged:
            names = ", ".join(p.name for p in damaged)
            tell(say, f"Damaged and set aside as *{DAMAGED}: {names}; {path.name} is taken instead.")
        return found
    if damaged or any(Path(folder).glob(f"state-*{DAMAGED}")):
        hint = "Start a new run from its newest model: sgan train --resume SNAPSHOT"
        raise SganError(f"All training states in {folder} are damaged.", hint=hint)
    return None


@contextlib.contextmanager
def _reading(path: Path):
    """Whatever goes wrong is told in one sentence."""
    try:
        yield
    except OSError as e:
        if e.errno == errno.EIO:
            raise DamagedState(f"{path} is damaged: {e.strerror}.") from e
        raise SganError(f"Cannot read {path}: {e.strerror or e}.") from e  # it may be readable on another day
    except safetensors.SafetensorError as e:
        raise DamagedState(f"{path} is damaged: {e}.") from e
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as e:
        raise DamagedState(f"{path} is damaged: its header makes no sense ({type(e).__name__}: {e}).") from e


def _open(path: Path) -> safetensors.safe_open:
    f = safetensors.safe_open(path, framework="pt")
    if (found := (f.metadata() or {}).get("format")) != FORMAT:
        raise SganError(f"{path} is no training state that this version can read (its format: {found}).")
    return f


def _written(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a run that goes on removes its old states
        return path.stat().st_mtime_ns
    return 0
