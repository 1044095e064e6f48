"""Means between two lines of the log, and the files of the log."""

import json

import pytest
import torch

from stylegan_cli.training.state import gather, restore
from stylegan_cli.training.stats import Means, RunLog


def test_means_weigh_every_value_alike():
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
    for kimg in (0.5, 1.0):  # a run that goes on appends
        log = RunLog(tmp_path)
        log.stats({"kimg": kimg, "loss/G": 0.123456789})
        log.text(f"kimg {kimg}")
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert lines == [{"kimg": 0.5, "loss/G": 0.123457}, {"kimg": 1.0, "loss/G": 0.123457}]
    assert (tmp_path / "log.txt").read_text() == "kimg 0.5\nkimg 1.0\n"


def test_state_of_many_parts():
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
    with pytest.raises(KeyError, match="no state for c"):
        restore(parts | {"c": Part(0)}, state)
