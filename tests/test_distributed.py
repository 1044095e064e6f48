"""Ranks: how they start, restart, stop and end, and how they communicate."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stylegan_cli import distributed
from stylegan_cli.errors import SganError

SCRIPT = Path(__file__).parent / "_distributed_ranks.py"
TORCHRUN = Path(__file__).parent / "_distributed_torchrun.py"


@contextlib.contextmanager
def run_script(folder, *names, command=(str(SCRIPT),)):
    """Run the script in its own process group, as a terminal does; all of its processes end with the test."""
    line, pipes = (
        [sys.executable, *command, str(folder), *names],
        {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, **pipes, text=True, start_new_session=True, env=environment)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def read_ranks(folder, name):
    """What both ranks wrote under a name; None until both have."""
    paths = [Path(folder, f"{name}-{rank}") for rank in (0, 1)]
    texts = [p.read_text() for p in paths if p.exists()]
    return [json.loads(t) for t in texts] if len(texts) == 2 and all(texts) else None


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Name of each call -> its error, seconds, result and stderr; and the folder."""
    folder = tmp_path_factory.mktemp("ranks")
    names = ["lost_once", "always_lost", "user_error", "other_error", "no_handler"]
    with run_script(folder, *names) as process:
        stdout, stderr = process.communicate(timeout=300)
    parts = dict(part.split("\n", 1) for part in re.split(r"^== ", stderr, flags=re.M)[1:])
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [name for name, *_ in lines] == names, stderr
    return {name: (*outcome, parts[name]) for name, *outcome in lines} | {"folder": folder}


def test_two_ranks_communicate(outcomes):
    first, second = read_ranks(outcomes["folder"], "helpers")
    assert first == second
    assert first["ranks"] == 2 and first["threads"] >= 1 and not first["launched"]
    assert first["gathered"] == [
        ["[1, 1, 1, 1, 1, 1]", "[2, 2, 2, 2, 2, 2]"],
        ["[True]", "[False]"],
        ["[1.0, -0.5]", "[2.0, -0.5]"],
        ["[(1+1j)]", "[(2+1j)]"],
        ["[]", "[]"],
    ]
    assert first["text"] == ["Grüße\n", "", "x" * 5000]
    assert first["same"] == [True, False, False, False]
    assert first["any"] == [True, False]
    assert first["sum"] == [3.0] * 3


def test_all_ranks_restart_when_one_is_lost(outcomes):
    raised, _, result, stderr = outcomes["lost_once"]
    assert raised is None and result == str(outcomes["folder"] / "0")
    assert stderr == "Rank 1 was killed by SIGKILL. Restarting all ranks from the last state.\n"


def test_restarts_are_limited(outcomes):
    (kind, message, hint, _), _, _, stderr = outcomes["always_lost"]
    assert (kind, message) == ("SganError", "Rank 0 was killed by SIGSEGV after 1 restart.")
    assert stderr == "Rank 0 was killed by SIGSEGV. Restarting all ranks from the last state.\n"
    assert (outcomes["folder"] / "lost-0").read_text() == "started\n" * 2


def test_a_user_error_is_reported_once_and_not_retried(outcomes):
    raised, seconds, _, stderr = outcomes["user_error"]
    assert raised[:3] == ["SganError", "The images are gone.", "Bring them back."] and stderr == ""
    assert (outcomes["folder"] / "user_error").read_text() == "started\n" * 2  # one line per rank
    assert seconds < 15


def test_any_other_error_is_reported_once(outcomes):
    (kind, message, hint, cause), _, _, stderr = outcomes["other_error"]
    assert (kind, message) == ("SganError", "Rank 1 failed with ValueError: no such thing") and "--debug" in hint
    assert "_distributed_ranks.py" in cause and stderr == ""  # the traceback, for --debug


def test_ctrl_c_before_any_handler_is_installed(outcomes):
    raised, seconds, _, stderr = outcomes["no_handler"]
    assert raised[0] == "KeyboardInterrupt" and stderr == "" and seconds < 30


def test_ctrl_c_stops_cleanly(tmp_path):
    """A terminal sends Ctrl-C to all its processes. The save takes some time."""
    with run_script(tmp_path, "training:2") as process:
        wait_for(lambda: read_ranks(tmp_path, "pid"))
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(stdout)[1] is None, stderr
    assert stderr == "== training\nSaving.\n"
    assert read_ranks(tmp_path, "saved") == read_ranks(tmp_path, "signals") == [1, 1]


def test_a_second_signal_kills_all_ranks(tmp_path):
    """The first is a SIGTERM that also reaches the ranks, as from `timeout`: they handle it once."""
    with run_script(tmp_path, "training:600") as process:
        pids = wait_for(lambda: read_ranks(tmp_path, "pid"))
        os.killpg(process.pid, signal.SIGTERM)
        assert wait_for(lambda: read_ranks(tmp_path, "signals")) == [1, 1]
        time.sleep(0.5)
        assert read_ranks(tmp_path, "signals") == [1, 1] and is_alive(pids[0])
        assert is_alive(pids[1]) or Path(tmp_path, "saved-1").exists()  # it has nothing to save, and may have finished
        os.killpg(process.pid, signal.SIGINT)
        start = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - start < 10, stderr
    assert json.loads(stdout)[1][0] == "KeyboardInterrupt" and stderr == "== training\nSaving.\n"
    assert not any(is_alive(pid) for pid in pids)


def test_ranks_end_with_their_parent_and_leave_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with run_script(tmp_path, "training:0") as process:
        pids = wait_for(lambda: read_ranks(tmp_path, "pid"))
        assert list(tmp_path.glob("sgan-ranks-*"))
        process.kill()
        process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=10)
        assert not list(tmp_path.glob("sgan-ranks-*"))


def test_under_torchrun(tmp_path):
    """Both ranks return results; a user error that both raise is reported by the first."""
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TORCHRUN))
    with run_script(tmp_path, command=command) as process:
        _, stderr = process.communicate(timeout=120)
    assert read_ranks(tmp_path, "launched") == [[True, 2, True], [True, 2, False]], stderr
    assert process.returncode == 1
    message = "--gpus 3 does not match the 2 processes that the launcher started.\nRemove --gpus.\n"
    assert stderr.count(message) == stderr.count("--gpus 3") == 1


def test_one_rank():
    t = torch.arange(3)
    assert distributed.gather_over_ranks(t)[0] is t and distributed.sum_over_ranks(t) is t
    assert distributed.broadcast_text("here") == "here"
    assert distributed.same_on_all_ranks([t]) and distributed.any_rank(True, "cpu")
    assert not distributed.any_rank(False, "cpu")
    assert distributed.launcher_world_size() is None and not distributed.has_launcher()
    assert distributed.is_first_on_machine()
    calls = []
    distributed.launch(calls.append, (1,), 1)
    assert distributed.launch(str, (2,), None) == "2" and calls == [1]


def test_more_gpus_than_there_are():
    count = torch.cuda.device_count() + 2
    with pytest.raises(SganError, match=f"--gpus {count} exceeds the {count - 2} GPU"):
        distributed.launch(print, (), count, "cuda")
