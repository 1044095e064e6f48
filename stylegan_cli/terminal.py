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

_GONE = (errno.EPIPE, errno.EIO)  # the reader has closed the pipe; the terminal does not exist any more


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
    """Make stdout and stderr accept every character, and silence stderr once nobody reads it."""
    if os.name == "posix" and sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        buffer = io.BufferedWriter(_Diagnostics(sys.stderr.fileno(), "wb", closefd=False))
        sys.stderr = sys.__stderr__ = io.TextIOWrapper(buffer, sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sgan.escape")


class _Diagnostics(io.FileIO):
    """A stream of messages whose reader may go away: what follows is discarded, also for child processes."""

    def write(self, data) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride] (bytes-like)
        try:
            return super().write(data)
        except OSError as e:
            if e.errno not in _GONE:
                raise
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self.fileno())
            return len(data)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write undecodable bytes of file names as the bytes that they are, and other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    handlers = ("surrogateescape" if "\udc80" <= c <= "\udcff" else "backslashreplace" for c in characters)
    return b"".join(c.encode("ascii", h) for c, h in zip(characters, handlers, strict=True)), error.end


codecs.register_error("sgan.escape", _escape)
