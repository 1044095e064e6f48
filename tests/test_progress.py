"""Progress callbacks, and the bars that show them."""

import io
import pickle
from contextlib import redirect_stderr

import pytest

from stylegan_cli.cli.progress import bar
from stylegan_cli.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_track_reports_each_item():
    reports = []
    items = list(track("abc", "letters", lambda *report: reports.append(report)))
    assert items == ["a", "b", "c"]
    assert reports == [("letters", 0, 3), ("letters", 1, 3), ("letters", 2, 3), ("letters", 3, 3)]


def test_bar_shows_progress():
    with redirect_stderr(Terminal()) as shown, bar(quiet=False) as progress:
        assert list(track(range(5), "images", progress)) == [*range(5)]
        progress("steps, distance=0.5", 1, 4)
    shown = shown.getvalue()
    assert "images: 100%" in shown and "5/5" in shown and "steps" in shown and "distance=0.5" in shown


@pytest.mark.parametrize(("quiet", "stderr"), [(True, Terminal), (False, io.StringIO)])
def test_nothing_is_shown_when_quiet_or_not_a_terminal(quiet, stderr):
    with redirect_stderr(stderr()) as shown, bar(quiet) as progress:
        progress("images", 1, 2)
    assert shown.getvalue() == ""


def test_copy_in_another_process_has_its_own_bars():
    with redirect_stderr(Terminal()) as shown, bar(quiet=False) as progress:
        progress("images", 1, 2)
        copied = pickle.loads(pickle.dumps(progress))
        copied("images", 2, 2)
        assert "2/2" in shown.getvalue()
        progress("images", 2, 2)
    assert shown.getvalue().count("2/2") > 1
