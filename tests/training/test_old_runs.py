"""Runs that version 0.1 left before families had folders of their own: flat configurations, states with more in them.

`old/<family>/` holds the configuration and the state at 0.048 kimg of a tiny run on the packaged images, and the model
that it ended with at 0.064 kimg without a stop.
"""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.state_files import list_states, read_state

OLD = Path(__file__).with_name("old")
FAMILIES = sorted(path.name for path in OLD.iterdir())


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    return Path(shutil.copytree(OLD / request.param, tmp_path / f"00000-{request.param}"))


def distance(a, b):
    """Root mean square over the weights of the generator's moving average."""
    names = [name for name in a if name.startswith("G.") and name in b and a[name].shape == b[name].shape]
    assert len(names) > 10
    return torch.cat([(a[name] - b[name]).flatten() for name in names]).square().mean().sqrt().item()


def test_they_go_on_as_if_nothing_had_happened(sgan, folder):
    state = read_state(list_states(folder)[0])[0]
    begun = {f"G.{name}": tensor for name, tensor in state["G_ema"].items()}
    sgan("train", "--resume", folder, "-q", "--device", "cpu")
    ended = safetensors.torch.load_file(folder / "snapshot-000000.064.safetensors")
    expected = safetensors.torch.load_file(folder / "expected.safetensors")
    assert ended.keys() == expected.keys()
    # Rounding differs between processors, and Adam makes much of it where a gradient is next to nothing.
    assert distance(ended, expected) < 0.1 * distance(begun, expected)


def test_their_snapshots_open_and_draw(folder):
    snapshot = load_snapshot(folder / "expected.safetensors")
    assert snapshot.info.generator.family == folder.name.partition("-")[2] and snapshot.D is not None
    image = snapshot.G(torch.randn(2, snapshot.G.config.z_dim))
    assert image.shape == (2, 3, 16, 16) and image.isfinite().all()


def test_a_changed_setting_is_still_seen(sgan, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lr": 0.5}))
    result = sgan("train", "--resume", folder, "-q", code=1)
    assert "lr: " in result.stderr and "0.5 now" in result.stderr


def test_an_unknown_family_is_named_with_those_that_exist(sgan, folder):
    config = json.loads((folder / "config.json").read_text())
    config["generator"]["family"] = "stylegan9"
    (folder / "config.json").write_text(json.dumps(config))
    result = sgan("train", "--resume", folder, "-q", code=1)
    assert "'stylegan9'" in result.stderr and "stylegan2, stylegan, progan" in result.stderr
