"""A run that is killed anywhere ends with the bits of one that was left alone. The long form is in _kills.py."""

import os
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(scope="module")
def kills():
    return runpy.run_path(str(Path(__file__).parent / "_kills.py"))


@pytest.fixture(scope="module")
def data(kills, tmp_path_factory):
    return kills["make_data"](tmp_path_factory.mktemp("kills") / "data")


def left_alone(kills, data, folder, ranks):
    done = kills["child"](data, folder, ranks, "never")
    assert done.returncode == 0, done.stderr
    return kills["end_of"](folder)


def test_killed_at_every_point_of_a_write_and_between(kills, data, tmp_path):
    plans = [f"write {1 + i % 2} {point} 0.6" for i, point in enumerate(kills["POINTS"])]
    plans[2:2] = ["after 1.0"]
    deaths = kills["killed_run"](data, tmp_path / "killed", 1, plans)
    assert deaths >= len(plans) - 1  # on a fast machine the run may end before its second is over
    assert kills["same"](left_alone(kills, data, tmp_path / "whole", 1), kills["end_of"](tmp_path / "killed"))


def test_a_lost_rank_makes_all_go_on_from_the_last_state(kills, data, tmp_path):
    done = kills["child"](data, tmp_path / "lost", 2, "lose 13")
    assert done.returncode == 0 and (tmp_path / "lost.lost").exists()
    assert "Rank 1 was killed by SIGKILL" in done.stderr and "Traceback" not in done.stderr
    assert "Going on from kimg 0.08." in (tmp_path / "lost" / "log.txt").read_text()
    assert kills["same"](left_alone(kills, data, tmp_path / "whole", 2), kills["end_of"](tmp_path / "lost"))
