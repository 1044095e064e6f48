"""Results come in order, and no kind of failure makes the work hang."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from stylegan_cli.data.parallel import ordered_map
from stylegan_cli.errors import SganError


def slow_square(x):
    time.sleep(0.001 * (x % 3))
    return x * x


def fail_at_70(x):
    if x == 70:
        raise SganError("70 failed", hint="69")
    return x


def die_at_70(x):
    if x == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 16, 100, 161])
def test_results_come_in_order(count, workers):
    assert list(ordered_map(slow_square, range(count), workers)) == [x * x for x in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_exceptions_are_raised_in_the_parent(workers):
    with pytest.raises(SganError, match="70 failed") as e:
        list(ordered_map(fail_at_70, range(200), workers))
    assert e.value.hint == "69"
    assert not multiprocessing.active_children()


def test_death_of_a_process_is_reported():
    with pytest.raises(SganError, match="worker process died"):
        list(ordered_map(die_at_70, range(200), 2))
    assert not multiprocessing.active_children()


def test_closing_ends_the_processes():
    work = ordered_map(slow_square, range(1000), 2)
    assert next(work) == 0
    assert len(multiprocessing.active_children()) == 2
    work.close()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_processes_end_when_their_parent_is_killed():
    """The kernel kills a process that is out of memory; its workers must not stay behind."""
    code = """
from stylegan_cli.data.parallel import ordered_map
work = ordered_map(abs, range(1000), 3)
next(work)
print("started", flush=True)
input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == b"started\n"
        process.kill()
        process.communicate(timeout=30)  # until no worker has the output open
