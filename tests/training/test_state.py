"""Restoring is all or nothing; the random generators of every rank go on where they were."""

import random

import numpy as np
import pytest
import torch

from stylegan_cli.training.state import Rng, gather, restore
from stylegan_cli.training.state_format import freeze


@pytest.fixture(autouse=True)
def generators_as_before():
    before = Rng().state_dict()
    yield
    Rng().load_state_dict(before)


def draw():
    """From every generator, an odd count of normal numbers, so that one is kept back."""
    drawn = torch.rand(3).tolist() + torch.randn(1).tolist()
    drawn += np.random.rand(3).tolist() + [np.random.normal()]
    return drawn + [random.random(), random.gauss(0, 1)]


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


class Part:
    def __init__(self):
        self.loaded = None

    def state_dict(self):
        return {"a": 1}

    def load_state_dict(self, state):
        self.loaded = state


def test_nothing_is_loaded_if_a_part_is_missing():
    parts = {"G": Part(), "D": Part(), "clock": Part()}
    with pytest.raises(KeyError, match="no state for D, clock"):
        restore(parts, {"G": {"a": 2}})
    assert parts["G"].loaded is None
    restore(parts, gather(parts) | {"more": {}})
    assert all(part.loaded == {"a": 1} for part in parts.values())


@pytest.mark.parametrize("before", [0, 1])
def test_random_generators_go_on(before):
    """Also when a normal number is kept for the next call."""
    seed(1)
    for _ in range(before):
        draw()
    state = Rng().state_dict()
    expected = draw()
    seed(2)
    draw()
    Rng().load_state_dict(state)
    assert draw() == expected


def test_reading_the_state_draws_nothing():
    seed(1)
    expected = draw()
    seed(1)
    Rng().state_dict()
    assert draw() == expected


def ranks(count):
    """What each of some ranks has in hand, and the state that they gather."""
    rows = []
    for rank in range(count):
        seed(rank)
        Rng(lambda t: (rows.append(t), [t])[1]).state_dict()
    return Rng(lambda t: rows).state_dict()


def test_each_rank_takes_its_own():
    state = ranks(3)
    assert {len(part) for part in state.values()} == {3}
    for rank in (2, 0, 1):
        seed(99)
        Rng(rank=rank).load_state_dict(state)
        found = draw()
        seed(rank)
        assert found == draw()


def test_more_ranks_than_before_seed_themselves():
    drawn = []
    for rank in (0, 1, 2, 3, 2, 3):
        seed(rank + len(drawn))
        Rng(rank=rank).load_state_dict(ranks(2))
        drawn.append(draw())
    assert drawn[2:4] == drawn[4:]  # from the state and the number alone
    assert len({tuple(d) for d in drawn[:4]}) == 4
    seed(7)
    other = Rng().state_dict()
    Rng(rank=2).load_state_dict(other)
    assert draw() != drawn[2]


def test_a_gpus_generator_is_part_of_it(monkeypatch):
    """As far as that can be seen without one."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.arange(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", taken.append)
    state = Rng().state_dict()
    Rng().load_state_dict(state)
    assert taken[0].tolist() == list(range(16))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # goes on without a GPU
    Rng().load_state_dict(state)
    assert len(taken) == 1


def test_a_file_can_hold_it():
    tensors = {}
    freeze(Rng().state_dict(), tensors)
    assert sorted(tensors) == ["cuda", "numpy", "python", "torch"]
