"""A run folder is locked by at most one process, and by none after that process has ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.runs import is_running, lock, lock_run

HOLD = (
    "import sys, time; from stylegan_cli.runs import lock_run\n"
    "with lock_run(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
)
FORK = HOLD.replace("print(", "import os; os.fork() or print(")  # printed by the child, after its fork handlers

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture
def hold(tmp_path):
    """Start a process that locks tmp_path: hold(code) -> the process."""
    started = []

    def start(code=HOLD):
        line = [sys.executable, "-c", code, str(tmp_path)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(params=["flock", "pid"])
def kind(request, monkeypatch):
    """With flock, and without it as on Windows, where only the recorded process counts."""
    if request.param == "pid":
        monkeypatch.setattr(lock, "fcntl", None)
    elif lock.fcntl is None:
        pytest.skip("no flock")
    monkeypatch.setattr(lock, "_TIMEOUT", 0.2)


def test_lock_and_release(tmp_path, kind):
    assert not is_running(tmp_path)
    for _ in range(2):
        with lock_run(tmp_path):
            assert is_running(tmp_path)
            assert json.loads((tmp_path / ".lock").read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
        assert not is_running(tmp_path)
    assert not list(tmp_path.iterdir())


def test_release_on_an_error(tmp_path, kind):
    with pytest.raises(ZeroDivisionError), lock_run(tmp_path):
        raise ZeroDivisionError
    assert not is_running(tmp_path)


def test_second_process_learns_who_holds_the_lock(tmp_path, kind, hold):
    process = hold()
    assert is_running(tmp_path)
    with pytest.raises(SganError) as caught, lock_run(tmp_path):
        pass
    assert f"is in use by process {process.pid} on host {socket.gethostname()}" in str(caught.value)
    assert str(tmp_path / ".lock") in caught.value.hint
    assert is_running(tmp_path)


def test_second_lock_in_the_same_process(tmp_path, kind):
    with lock_run(tmp_path):
        with pytest.raises(SganError, match=f"process {os.getpid()} "), lock_run(tmp_path):
            pass
        assert is_running(tmp_path)


@posix
def test_killed_process_releases_the_lock(tmp_path, kind, hold):
    process = hold()
    process.kill()
    process.wait()
    assert (tmp_path / ".lock").exists()
    assert not is_running(tmp_path)
    with lock_run(tmp_path):
        assert is_running(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork") or lock.fcntl is None, reason="fork")
def test_forked_child_does_not_keep_the_lock(tmp_path, hold):
    process = hold(FORK)
    assert is_running(tmp_path)
    process.kill()
    process.wait()
    assert not is_running(tmp_path)


def test_threads_take_turns(tmp_path):
    """A thread that waits for a lock file that is then removed must not lock the removed one."""
    active, max_active, finished = [0], [0], []

    def work():
        for _ in range(15):
            while True:
                try:
                    with lock_run(tmp_path):
                        active[0] += 1
                        max_active[0] = max(max_active[0], active[0])
                        time.sleep(0.001)
                        active[0] -= 1
                        finished.append(1)
                    break
                except SganError:
                    continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max_active[0], len(finished)) == (1, 60)


def test_is_running_does_not_disturb_lock_run(tmp_path):
    """is_running holds the lock for an instant, for which a starting run waits."""
    stop = threading.Event()

    def poll():
        while not stop.is_set():
            is_running(tmp_path)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        for _ in range(30):
            with lock_run(tmp_path):
                assert is_running(tmp_path)
    finally:
        stop.set()
        thread.join()


def test_process_on_another_host_without_flock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "_TIMEOUT", 0)
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(SganError, match="process 1 on host elsewhere"), lock_run(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "x"}', '{"host": 1, "pid": "x"}'])
def test_invalid_lock_file(tmp_path, kind, text):
    (tmp_path / ".lock").write_text(text)
    assert not is_running(tmp_path)
    with lock_run(tmp_path):
        assert is_running(tmp_path)


def test_missing_folder(tmp_path):
    assert not is_running(tmp_path / "absent")
    with pytest.raises(SganError, match="Cannot write"), lock_run(tmp_path / "absent"):
        pass


def test_folder_is_removed_while_locked(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with lock_run(folder):
        (folder / ".lock").unlink()
        folder.rmdir()
    assert not folder.exists()
