"""The terminal and the pipes around a process: signals to stop, closed pipes, and encodings that lack characters."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

# Requests to stop: Ctrl-C; the system's; a terminal or a connection that closes. Windows has no SIGHUP.
STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
HANGUP = getattr(signal, "SIGHUP", None)


@contextlib.contextmanager
def handle_signals(
    handler: Callable[[int, FrameType | None], object],
    signals: tuple[signal.Signals, ...] = STOP_SIGNALS,
) -> Iterator[None]:
    """Call a handler on signals within the block, where they can be handled (not in threads).

    An ignored SIGHUP stays ignored: that is what `nohup` does.
    """
    previous = {}
    for number in signals:
        current = signal.getsignal(number)  # None: not Python's, so that it could not be restored
        if current is not None and not (number == HANGUP and current == signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # not the main thread
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def stop_as_interrupt() -> contextlib.AbstractContextManager[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C within the block, so that temporary files are removed and partial results
    kept. A SIGHUP after another request is not a second one: shells and terminals send several."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number != HANGUP or len(received) == 1:
            raise KeyboardInterrupt

    return handle_signals(interrupt, tuple(number for number in STOP_SIGNALS if number != signal.SIGINT))


def prepare_streams() -> None:
    """Make stdout and stderr accept every character, and silence them once nobody reads them: a command that prints
    its result after hours of work, or to `head`, does not fail for that."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if os.name == "posix" and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            is_terminal = stream.isatty()
            buffer = io.BufferedWriter(_Output(stream.fileno(), is_terminal or name == "stderr"))
            stream = io.TextIOWrapper(buffer, stream.encoding, line_buffering=is_terminal or name == "stderr")
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        stream.reconfigure(errors="sgan.escape")


class _Output(io.FileIO):
    """A stream whose reader may go away: what follows is discarded, also for child processes."""

    def __init__(
        self,
        descriptor: int,
        may_hang_up: bool,  # an error of the device means that the terminal is gone, not that a file is damaged
    ):
        super().__init__(descriptor, "wb", closefd=False)
        self.gone = (errno.EPIPE, errno.EIO) if may_hang_up else (errno.EPIPE,)

    def write(self, data) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride] (bytes-like)
        try:
            return super().write(data)
        except OSError as e:
            with open(os.devnull, "wb") as null:  # also if it raises, as Python writes what is left once more at exit
                os.dup2(null.fileno(), self.fileno())
            if e.errno not in self.gone:
                raise
            return len(data)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write undecodable bytes of file names as the bytes that they are, and other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    handlers = ("surrogateescape" if "\udc80" <= c <= "\udcff" else "backslashreplace" for c in characters)
    return b"".join(c.encode("ascii", h) for c, h in zip(characters, handlers, strict=True)), error.end


codecs.register_error("sgan.escape", _escape)
