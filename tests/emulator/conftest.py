"""The emulator for the tests of csrc/."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def harness():
    """The module harness.py, which is not importable by name."""
    spec = importlib.util.spec_from_file_location("emulator_harness", Path(__file__).with_name("harness.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if reason := module.missing():
        pytest.skip(reason)
    return module


@pytest.fixture(scope="session")
def emulator(harness):
    """An emulator with all launchers of csrc/: emulator.call('bias_act', x=..., out=..., ...)."""
    return harness.Emulator()
