"""Progress bars on stderr."""

import contextlib
import io
import os

import pytest
from tqdm import tqdm

from stylegan_cli import download
from stylegan_cli.cli.progress import bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(*steps, quiet=False, terminal=None):
    """The text on stderr after these steps."""
    terminal = Terminal() if terminal is None else terminal
    with contextlib.redirect_stderr(terminal), contextlib.suppress(KeyboardInterrupt), bar(quiet) as progress:
        for step in steps:
            progress(*step)
        raise KeyboardInterrupt
    return terminal.getvalue()


def test_one_bar_per_description():
    text = show(
        ("steps", 0, 2),
        ("images", 3, 4),
        ("images", 4, 4),
        ("steps, distance=0.5", 1, 2),
        ("steps, distance=0.25", 2, 2),
    )
    last = text.rstrip().rsplit("\r", 1)[-1]
    assert "images" in text and last.startswith("steps: 100%") and "2/2" in last and "distance=0.25" in last


def test_an_interrupted_bar_is_closed():
    assert show(("steps", 1, 4)).endswith("\n")


def test_no_bars_when_quiet_or_not_a_terminal():
    assert show(("steps", 1, 2), quiet=True) == ""
    assert show(("steps", 1, 2), ("steps", 2, 2), terminal=io.StringIO()) == ""


@pytest.mark.parametrize("line", [["model", "info"], ["generate", "--model"], ["train", "--resume"]], ids=" ".join)
def test_quiet_hides_the_bars_of_downloads(sgan, server, monkeypatch, line):
    """Which no callback shows."""
    shown, server.body = [], b"not a model" * 100
    monkeypatch.setattr(download, "tqdm", lambda **options: shown.append(options["disable"]) or tqdm(**options))
    for options in ([], ["-q"], []):
        sgan(*line, f"{server.url}?{len(shown)}", *options, code=1)
    assert shown == [None, True, None] and "TQDM_DISABLE" not in os.environ
