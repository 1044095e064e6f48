"""Detectors without weights, in place of the real ones."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stylegan_cli.metrics import passes

HERE = Path(__file__).parent
RANKS = SimpleNamespace(**runpy.run_path(str(HERE / "_ranks.py")))


@pytest.fixture(scope="session")
def tiny_generator():
    """A model with random weights: tiny_generator(size, channels, c_dim)."""
    return RANKS.tiny_generator


@pytest.fixture
def labeled():
    """A dataset of three classes without images: labeled(class numbers)."""

    class Labeled(list):
        def labels(self, indices):
            return torch.eye(3)[torch.tensor(self)[indices]]

    return Labeled


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """Fake detectors, a fake LPIPS, and an empty cache.

    `fakes.loaded` lists the detectors that were loaded; `fakes.is_standard` sets whether their weights are standard.
    """
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    state = SimpleNamespace(loaded=[], is_standard=True, detector=RANKS.FakeDetector, lpips=RANKS.FakeLpips)

    def load_detector(name, device="cpu", file=None):
        torch.rand(1)  # like the initialization of a network
        state.loaded.append(RANKS.FakeDetector(name, state.is_standard))
        return state.loaded[-1]

    def load_lpips(net="vgg", device="cpu", file=None):
        return RANKS.FakeLpips(state.is_standard)

    monkeypatch.setattr(passes, "load_detector", load_detector)
    monkeypatch.setattr(passes, "load_lpips", load_lpips)
    return state
