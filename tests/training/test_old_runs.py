"""Runs of version 0.1, from before each family had its own folder: flat configurations, states with extra entries.

`old/<family>/` contains the configuration and the state at 0.048 kimg of a tiny run on the bundled dataset, and the
model at its end, at 0.064 kimg, without interruption.
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
    """Root mean square over the weights of the generator's moving average. The mean of w is not among them: it moved
    once a step then, and moves with every pass of the generator now."""
    names = [name for name in a if name.startswith("G.") and name in b and a[name].shape == b[name].shape]
    names.remove("G.mapping.w_avg")
    assert len(names) > 10
    return torch.cat([(a[name] - b[name]).flatten() for name in names]).square().mean().sqrt().item()


def test_old_runs_resume_as_if_uninterrupted(sgan, folder):
    state = read_state(list_states(folder)[0])[0]
    start = {f"G.{name}": tensor for name, tensor in state["G_ema"].items()}
    sgan("train", "--resume", folder, "-q", "--device", "cpu")
    result = safetensors.torch.load_file(folder / "snapshot-000000.064.safetensors")
    expected = safetensors.torch.load_file(folder / "expected.safetensors")
    assert result.keys() == expected.keys()
    # Rounding differs between processors, and Adam amplifies it where a gradient is almost 0.
    assert distance(result, expected) < 0.1 * distance(start, expected)


def test_old_runs_continue_through_all_phases(sgan, folder):
    """With regularization, in which Adam skipped parameters without a gradient then."""
    sgan("train", "--resume", folder, "-q", "--device", "cpu", "--kimg", "0.144")
    assert load_snapshot(folder / "snapshot-000000.144.safetensors").D is not None
    state = read_state(list_states(folder)[0])[0]
    assert state["guard"]["skipped"] == 0 and state["clock"]["step"] == 18


def test_old_snapshots_load_and_generate(folder):
    snapshot = load_snapshot(folder / "expected.safetensors")
    assert snapshot.info.generator.family == folder.name.partition("-")[2] and snapshot.D is not None
    image = snapshot.G(torch.randn(2, snapshot.G.config.z_dim))
    assert image.shape == (2, 3, 16, 16) and image.isfinite().all()


def test_a_changed_setting_is_reported(sgan, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lr": 0.5}))
    result = sgan("train", "--resume", folder, "-q", code=1)
    assert "lr: " in result.stderr and "0.5 now" in result.stderr


def test_an_unknown_family_is_reported_with_the_known_ones(sgan, folder):
    config = json.loads((folder / "config.json").read_text())
    config["generator"]["family"] = "stylegan9"
    (folder / "config.json").write_text(json.dumps(config))
    result = sgan("train", "--resume", folder, "-q", code=1)
    assert "'stylegan9'" in result.stderr and "stylegan2, stylegan3, stylegan, progan" in result.stderr
