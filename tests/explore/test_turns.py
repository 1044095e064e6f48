"""Whose turn it is."""

import threading
import time

import pytest

from stylegan_cli.explore.jobs import Job
from stylegan_cli.explore.turns import IMAGE, JOB, Turns


def queue(turns, ranks):
    """Start a thread for each rank while the turn is taken; return the order in which they got it."""
    order, threads = [], []

    def wait(name, rank):
        with turns.take(rank):
            order.append(name)

    with turns.take():
        for name, rank in enumerate(ranks):
            threads.append(threading.Thread(target=wait, args=(name, rank)))
            threads[-1].start()
            while len(turns._waiting) <= name:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    return order


def test_images_go_before_jobs_and_otherwise_who_came_first():
    assert queue(Turns(), [JOB, IMAGE, JOB, IMAGE]) == [1, 3, 0, 2]


def test_a_job_lets_images_go_first():
    turns, order = Turns(), []

    def image():
        with turns.take(IMAGE):
            order.append("image")

    with turns.take(JOB):
        turns.pass_on()  # nobody waits
        thread = threading.Thread(target=image)
        thread.start()
        while not turns._waiting:
            time.sleep(0.001)
        order.append("step")
        turns.pass_on()
        order.append("next step")
    thread.join()
    assert order == ["step", "image", "next step"]


def test_a_turn_ends_with_an_error():
    turns = Turns()
    with pytest.raises(ValueError, match="wrong"), turns.take():
        raise ValueError("wrong")
    with turns.take():
        pass


def test_a_slow_reader_gets_the_newest_event():
    job = Job(Turns(), lambda: None)
    job._put({"what": "steps", "done": 1, "image": "first"})
    job._put({"what": "steps", "done": 2})
    assert job.take() == {"what": "steps", "done": 2, "image": "first"}
    assert job.take() is None


def test_stopping_and_canceling():
    job = Job(Turns(), lambda: None)

    def work(job):
        job.stopped = True
        job.report("steps", 1, 2)

    job.run(work)
    assert "Stopped" in job.take()["error"]
    job = Job(Turns(), lambda: None)
    job.canceled = True
    job.run(lambda job: pytest.fail("must not begin"))
    assert job.finished and job.take() is None
