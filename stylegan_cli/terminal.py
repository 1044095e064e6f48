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

# Requests to stop that insist when they are repeated: Ctrl-C, the system's, Ctrl-\. Windows lacks some.
INSISTENT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name))

# All requests to stop; shells, terminals and batch systems may send several of the others: a connection that closes,
# the warning before the end of a job, a limit on CPU time.
STOP_SIGNALS: tuple[signal.Signals, ...] = INSISTENT + tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)

_GONE = (errno.EPIPE, errno.EIO)  # the reader has closed the pipe; the terminal does not exist any more


@contextlib.contextmanager
def handle_signals(
    handler: Callable[[int, FrameType | None], object],
    signals: tuple[signal.Signals, ...] = STOP_SIGNALS,
) -> Iterator[None]:
    """Call a handler on signals within the block, where they can be handled (not in threads).

    What is ignored stays ignored, as `nohup` and shells arrange it, except for Ctrl-C and SIGTERM.
    """
    previous = {}
    for number in signals:
        current = signal.getsignal(number)  # None: not Python's, so that it could not be restored
        is_ignored = current == signal.SIG_IGN and number not in (signal.SIGINT, signal.SIGTERM)
        if current is not None and not is_ignored:
            with contextlib.suppress(ValueError):  # not the main thread
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def stop_as_interrupt(
    received: list[int],  # the numbers of the signals are added to it
) -> contextlib.AbstractContextManager[None]:
    """Treat all requests to stop like Ctrl-C within the block, so that temporary files are removed and partial results
    kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number in INSISTENT or len(received) == 1:
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
