"""Means between two log lines, and the files of the log."""

import errno
import io
import json

import pytest
import torch

from stylegan_cli.training.state import gather, restore
from stylegan_cli.training.stats import Means, RunLog


def test_means_weight_all_values_equally():
    means = Means()
    means.add("loss", torch.tensor([1.0, 2.0, 3.0]))
    means.add("loss", torch.tensor([[10.0]]))
    means.add("score", torch.tensor(5.0))
    assert means.take() == {"loss": 4.0, "score": 5.0}
    assert means.take() == {}


def test_means_keep_no_graph():
    means, x = Means(), torch.ones(3, requires_grad=True)
    means.add("x", x * 2)
    assert means.take() == {"x": 2.0}


def test_log(tmp_path):
    for kimg in (0.5, 1.0):  # a resumed run appends
        log = RunLog(tmp_path, kimg=kimg - 0.5)
        log.stats({"kimg": kimg, "loss/G": 0.123456789})
        log.text(f"kimg {kimg}")
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert lines == [{"kimg": 0.5, "loss/G": 0.123457}, {"kimg": 1.0, "loss/G": 0.123457}]
    assert (tmp_path / "log.txt").read_text() == "kimg 0.5\nkimg 1.0\n"


def test_a_resumed_run_removes_lines_after_its_state(tmp_path):
    """Killed at 3 with its last state at 1: later lines would appear twice."""
    log = RunLog(tmp_path)
    for kimg in (1, 2, 3):
        log.stats({"kimg": kimg, "loss/G": 1.0})
        log.metric("fid50k_full", 10.0 / kimg, kimg, f"snapshot-{kimg}")
        log.text(f"kimg {kimg}")
    log.close()
    with open(tmp_path / "stats.jsonl", "a") as f:
        f.write('{"kimg": 3.5, "loss/')
    RunLog(tmp_path, kimg=1.0).close()
    assert [json.loads(line)["kimg"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [1]
    (metric,) = (tmp_path / "metric-fid50k_full.jsonl").read_text().splitlines()
    assert json.loads(metric) == {"metric": "fid50k_full", "value": 10.0, "kimg": 1, "snapshot": "snapshot-1"}
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 3


def test_a_full_disk_leaves_no_partial_line(tmp_path, monkeypatch):
    log = RunLog(tmp_path)
    log.text("first")
    monkeypatch.setattr("builtins.open", lambda *args: FullDisk(*args))
    with pytest.raises(OSError):
        log.text("second")
    monkeypatch.undo()
    log.text("third")
    assert (tmp_path / "log.txt").read_text() == "first\nthird\n"


class FullDisk:
    """A file on a disk with space for three more bytes."""

    def __init__(self, path, mode):
        self.file = io.FileIO(path, "a")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def seek(self, *where):
        return self.file.seek(*where)

    def write(self, content):
        self.file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_means_ignore_non_finite_values():
    means = Means()
    means.add("loss", torch.tensor([1.0, float("nan"), 3.0, float("inf")]))
    means.add("none", torch.tensor([float("nan")]))
    assert means.take() == {"loss": 2.0}
    means.add("loss", torch.tensor([5.0]))
    assert means.take() == {"loss": 5.0}


def test_state_of_several_parts():
    class Part:
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    state = gather({"a": Part(1), "b": Part(2)})
    assert state == {"a": {"value": 1}, "b": {"value": 2}}
    parts = {"a": Part(0), "b": Part(0)}
    restore(parts, state)
    assert (parts["a"].value, parts["b"].value) == (1, 2)
    with pytest.raises(KeyError, match="no entry for c"):
        restore(parts | {"c": Part(0)}, state)
