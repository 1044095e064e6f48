"""Ranks: how they start, start again, stop and end, and what they tell each other."""

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
def started(folder, *names, command=(str(SCRIPT),)):
    """The script in a process group of its own, as a terminal would have it; nothing of it outlives the test."""
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
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def of_ranks(folder, name):
    """What both ranks wrote under a name; None as long as one has not."""
    paths = [Path(folder, f"{name}-{rank}") for rank in (0, 1)]
    texts = [p.read_text() for p in paths if p.exists()]
    return [json.loads(t) for t in texts] if len(texts) == 2 and all(texts) else None


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By name of the call: what it raised, its seconds, what it returned and what stood on stderr; and the folder."""
    folder = tmp_path_factory.mktemp("ranks")
    names = ["lost_once", "always_lost", "mistaken", "broken", "deaf"]
    with started(folder, *names) as process:
        stdout, stderr = process.communicate(timeout=300)
    parts = dict(part.split("\n", 1) for part in re.split(r"^== ", stderr, flags=re.M)[1:])
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [name for name, *_ in lines] == names, stderr
    return {name: (*found, parts[name]) for name, *found in lines} | {"folder": folder}


def test_two_ranks_run_and_hear_each_other(told):
    first, second = of_ranks(told["folder"], "helpers")
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


def test_all_start_again_when_one_is_lost(told):
    raised, _, result, stderr = told["lost_once"]
    assert raised is None and result == str(told["folder"] / "0")
    assert stderr == "Rank 1 was lost (SIGKILL); all ranks start again from the last state.\n"


def test_no_more_often_than_said(told):
    (kind, sentence, hint, _), _, _, stderr = told["always_lost"]
    assert (kind, sentence) == ("SganError", "Rank 0 was lost (SIGSEGV), after 1 restart(s).")
    assert stderr == "Rank 0 was lost (SIGSEGV); all ranks start again from the last state.\n"
    assert (told["folder"] / "lost-0").read_text() == "started\n" * 2


def test_a_mistake_is_told_once_and_not_repeated(told):
    raised, seconds, _, stderr = told["mistaken"]
    assert raised[:3] == ["SganError", "The images are gone.", "Bring them back."] and stderr == ""
    assert (told["folder"] / "mistaken").read_text() == "started\n" * 2  # one line for each rank
    assert seconds < 15


def test_so_is_any_other_exception(told):
    (kind, sentence, hint, cause), _, _, stderr = told["broken"]
    assert (kind, sentence) == ("SganError", "Rank 1 failed with ValueError: no such thing") and "--debug" in hint
    assert "_distributed_ranks.py" in cause and stderr == ""  # the traceback, for --debug


def test_ctrl_c_before_anybody_listens(told):
    raised, seconds, _, stderr = told["deaf"]
    assert raised[0] == "KeyboardInterrupt" and stderr == "" and seconds < 30


def test_stop_in_good_order(tmp_path):
    """By Ctrl-C, which a terminal sends to all its processes; the save takes its time."""
    with started(tmp_path, "training:2") as process:
        wait_for(lambda: of_ranks(tmp_path, "pid"))
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(stdout)[1] is None, stderr
    assert stderr == "== training\nSaving.\n"
    assert of_ranks(tmp_path, "saved") == of_ranks(tmp_path, "heard") == [1, 1]


def test_a_second_signal_ends_all_at_once(tmp_path):
    """The first one is a SIGTERM that reaches the ranks too, as `timeout` sends it: they hear of it once."""
    with started(tmp_path, "training:600") as process:
        pids = wait_for(lambda: of_ranks(tmp_path, "pid"))
        os.killpg(process.pid, signal.SIGTERM)
        assert wait_for(lambda: of_ranks(tmp_path, "heard")) == [1, 1]
        time.sleep(0.5)
        assert of_ranks(tmp_path, "heard") == [1, 1] and alive(pids[0])
        assert alive(pids[1]) or Path(tmp_path, "saved-1").exists()  # it has nothing to save, and may be done
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 10, stderr
    assert json.loads(stdout)[1][0] == "KeyboardInterrupt" and stderr == "== training\nSaving.\n"
    assert not any(alive(pid) for pid in pids)


def test_ranks_end_with_their_parent(tmp_path, monkeypatch):
    """And leave nothing behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with started(tmp_path, "training:0") as process:
        pids = wait_for(lambda: of_ranks(tmp_path, "pid"))
        assert list(tmp_path.glob("sgan-ranks-*"))
        process.kill()
        process.wait()
        wait_for(lambda: not any(alive(pid) for pid in pids), seconds=10)
        assert not list(tmp_path.glob("sgan-ranks-*"))


def test_under_torchrun(tmp_path):
    """Results of both ranks; the same mistake of both is told by the first."""
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TORCHRUN))
    with started(tmp_path, command=command) as process:
        _, stderr = process.communicate(timeout=120)
    assert of_ranks(tmp_path, "launched") == [[True, 2, True], [True, 2, False]], stderr
    assert process.returncode == 1
    mistake = "--gpus 3 does not go with the 2 process(es) that the launcher started.\nLeave --gpus out.\n"
    assert stderr.count(mistake) == stderr.count("--gpus 3") == 1


def test_alone():
    t = torch.arange(3)
    assert distributed.gather_over_ranks(t)[0] is t and distributed.sum_over_ranks(t) is t
    assert distributed.broadcast_text("here") == "here"
    assert distributed.same_on_all_ranks([t]) and distributed.any_rank(True, "cpu")
    assert not distributed.any_rank(False, "cpu")
    assert distributed.launcher_world_size() is None and not distributed.has_launcher()
    assert distributed.is_first_on_machine()
    heard = []
    distributed.launch(heard.append, (1,), 1)
    assert distributed.launch(str, (2,), None) == "2" and heard == [1]


def test_more_gpus_than_there_are():
    count = torch.cuda.device_count() + 2
    with pytest.raises(SganError, match=f"--gpus {count} is more than the {count - 2} GPU"):
        distributed.launch(print, (), count, "cuda")
