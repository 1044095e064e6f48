"""The terminal and the pipes around a process: signals to stop, closed pipes, and encodings that lack characters."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from .errors import printable

# Requests to stop that insist when they are repeated: Ctrl-C, the system's, Ctrl-\. Windows lacks some.
INSISTENT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name))

# All requests to stop; shells, terminals and batch systems may send several of the others: a connection that closes,
# the warning before the end of a job, a limit on CPU time.
STOP_SIGNALS: tuple[signal.Signals, ...] = INSISTENT + tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)


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
            kind = _Lines if is_terminal or name == "stderr" else io.TextIOWrapper
            encoding = "sgan_ascii" if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding
            stream = kind(buffer, encoding, line_buffering=is_terminal or name == "stderr")
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


class _Lines(io.TextIOWrapper):
    """Text for people, on a terminal or in a log: control characters are escaped, except what moves progress bars."""

    def write(self, text: str, /) -> int:
        is_move = re.fullmatch(r"[\r\n]*(\x1b\[A)*", text)  # to another line, as tqdm does
        start = len(text) if is_move else text.startswith("\r")
        return super().write(text[:start] + re.sub(r"[^\n\t]+", lambda line: printable(line[0]), text[start:]))


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write undecodable bytes of file names as the bytes that they are, and other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    handlers = ("surrogateescape" if "\udc80" <= c <= "\udcff" else "backslashreplace" for c in characters)
    return b"".join(c.encode("ascii", h) for c, h in zip(characters, handlers, strict=True)), error.end


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name, as Click would write UTF-8 instead of ASCII."""
    if name != "sgan_ascii":
        return None
    codec = codecs.lookup("ascii")
    parts = {part: getattr(codec, part) for part in ("encode", "decode", "incrementalencoder", "incrementaldecoder")}
    return codecs.CodecInfo(name=name, **parts)


codecs.register_error("sgan.escape", _escape)
codecs.register(_find_ascii)
