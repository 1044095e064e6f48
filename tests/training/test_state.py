"""Restoring is all or nothing; extra entries of older states are ignored."""

import copy

import pytest
import torch

from stylegan_cli.training.state import gather, restore


class Part:
    def __init__(self):
        self.loaded = None

    def state_dict(self):
        return {"a": 1}

    def load_state_dict(self, state):
        self.loaded = state


def test_nothing_is_loaded_if_a_part_is_missing():
    parts = {"G": Part(), "D": Part(), "clock": Part()}
    with pytest.raises(KeyError, match="no entry for D, clock"):
        restore(parts, {"G": {"a": 2}})
    assert parts["G"].loaded is None
    restore(parts, gather(parts) | {"more": {}})
    assert all(part.loaded == {"a": 1} for part in parts.values())


def test_states_with_random_generators_still_load(make_config, make_trainer):
    """Earlier versions saved those of all ranks, which nothing uses."""
    trainer = make_trainer(make_config())
    trainer.step()
    state = copy.deepcopy(gather(trainer.stateful))
    trainer.step()
    assert "rng" not in state
    trainer.restore(state | {"rng": {"torch": torch.zeros(1, 5056, dtype=torch.uint8)}})
    assert trainer.shown == 8
