"""Two ranks measure the same values as one."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from stylegan_cli.metrics import passes

SCRIPT = Path(__file__).parent / "_ranks.py"


def test_two_ranks_measure_the_same_values_as_one(rgb_set, tmp_path, monkeypatch):
    """With separate caches. 32 reals and 30 fakes in batches of 4: the ranks' last batches differ in size."""
    monkeypatch.setattr(passes, "load_detector", None)
    monkeypatch.setattr(passes, "load_lpips", None)
    command = [sys.executable, str(SCRIPT), str(rgb_set), str(tmp_path / "2.json"), "2"]
    environment = os.environ | {"SGAN_CACHE": str(tmp_path / "cache2")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache1"))
    runpy.run_path(str(SCRIPT))["work"](str(rgb_set), str(tmp_path / "1.json"))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert (one["world"], two["world"], two["same"]) == (1, 2, True)
    for a, b in zip(one["values"], two["values"], strict=True):
        assert a and a.keys() == b.keys()
        for name in a:  # path lengths depend on the batch in their last digits: a step of 1e-4 in float32
            assert b[name] == pytest.approx(a[name], rel=1e-3 if name.startswith("ppl") else 1e-9), name
