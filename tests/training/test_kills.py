"""A run that is killed anywhere ends bit-exactly like an uninterrupted one. The long form is in _kills.py."""

import os
import runpy
from pathlib import Path

import pytest

# What has state in the classic families and in R3GAN takes a minute each.
CFGS = ["auto", *(pytest.param(cfg, marks=pytest.mark.slow) for cfg in ("biggan", "r3gan"))]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(scope="module")
def kills():
    return runpy.run_path(str(Path(__file__).parent / "_kills.py"))


@pytest.fixture(scope="module")
def data(kills, tmp_path_factory):
    return kills["make_data"](tmp_path_factory.mktemp("kills") / "data")


def uninterrupted(kills, data, folder, ranks, cfg="auto"):
    result = kills["child"](data, folder, ranks, "never", cfg)
    assert result.returncode == 0, result.stderr
    return kills["final_state"](folder)


def check_state(cfg, state):
    """That it holds what the preset was chosen for."""
    if cfg == "biggan":
        for end in (".u", ".mean", ".variance"):
            assert any(name.endswith(end) for name in state), end


@pytest.mark.parametrize("cfg", CFGS)
def test_kills_at_every_point_of_a_write_and_between(kills, data, tmp_path, cfg):
    plans = [f"write {1 + i % 2} {point} 0.6" for i, point in enumerate(kills["POINTS"])]
    plans[2:2] = ["after 1.0"]
    deaths = kills["killed_run"](data, tmp_path / "killed", 1, plans, cfg)
    assert deaths >= len(plans) - 1  # on a fast machine the run may end within the second
    state = kills["final_state"](tmp_path / "killed")
    check_state(cfg, state)
    assert kills["same"](uninterrupted(kills, data, tmp_path / "uninterrupted", 1, cfg), state)


@pytest.mark.slow
@pytest.mark.parametrize("cfg", ["auto", "biggan"])
def test_losing_a_rank_resumes_all_from_the_last_state(kills, data, tmp_path, cfg):
    result = kills["child"](data, tmp_path / "lost", 2, "lose 13", cfg)
    assert result.returncode == 0 and (tmp_path / "lost.lost").exists()
    assert "Rank 1 was killed by SIGKILL" in result.stderr and "Traceback" not in result.stderr
    assert "Resuming from kimg 0.08." in (tmp_path / "lost" / "log.txt").read_text()
    state = kills["final_state"](tmp_path / "lost")
    check_state(cfg, state)
    assert kills["same"](uninterrupted(kills, data, tmp_path / "uninterrupted", 2, cfg), state)
