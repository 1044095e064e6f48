"""Detectors that need no weights, in place of the real ones."""

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
    """A model of random weights: tiny_generator(size, channels, c_dim)."""
    return RANKS.tiny_generator


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """Detectors and a perceptual distance that need no weights, and an empty cache. `fakes.made` lists the detectors
    that were loaded, `fakes.is_standard` says whether they are the field's."""
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    state = SimpleNamespace(made=[], is_standard=True, detector=RANKS.FakeDetector, lpips=RANKS.FakeLpips)

    def load_detector(name, device="cpu", file=None):
        torch.rand(1)  # as a network does that is made before it gets its weights
        state.made.append(RANKS.FakeDetector(name, state.is_standard))
        return state.made[-1]

    def load_lpips(net="vgg", device="cpu", file=None):
        return RANKS.FakeLpips(state.is_standard)

    monkeypatch.setattr(passes, "load_detector", load_detector)
    monkeypatch.setattr(passes, "load_lpips", load_lpips)
    return state
