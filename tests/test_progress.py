"""Progress by a callback: what is told, and what a bar shows of it."""

import io
import pickle
from contextlib import redirect_stderr

import pytest

from stylegan_cli.cli.progress import bar
from stylegan_cli.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_are_told_one_after_the_other():
    told = []
    items = list(track("abc", "letters", lambda *news: told.append(news)))
    assert items == ["a", "b", "c"]
    assert told == [("letters", 0, 3), ("letters", 1, 3), ("letters", 2, 3), ("letters", 3, 3)]


def test_a_bar_shows_them():
    with redirect_stderr(Terminal()) as shown, bar(quiet=False) as progress:
        assert list(track(range(5), "images", progress)) == [*range(5)]
        progress("steps, distance=0.5", 1, 4)
    shown = shown.getvalue()
    assert "images:   0%" in shown and "0/5" in shown and "steps:  25%" in shown and "1/4" in shown


@pytest.mark.parametrize(("quiet", "stderr"), [(True, Terminal), (False, io.StringIO)])
def test_nothing_is_shown_when_quiet_or_where_nobody_looks(quiet, stderr):
    with redirect_stderr(stderr()) as shown, bar(quiet) as progress:
        progress("images", 1, 2)
    assert shown.getvalue() == ""


def test_other_processes_show_bars_of_their_own():
    with redirect_stderr(Terminal()) as shown, bar(quiet=False) as progress:
        progress("images", 1, 2)
        copied = pickle.loads(pickle.dumps(progress))
        copied("images", 2, 2)
        assert "2/2" in shown.getvalue()
        progress("images", 2, 2)  # its own is not disturbed
