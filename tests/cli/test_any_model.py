"""Files of latents, directions and tuned weights on other models: of the same run; of others with `--any-model`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.sampling.latent_files import load_latent_file
from stylegan_cli.snapshot import load_snapshot, read_info

TINY = ["--batch", "8", "--kimg", "0.016", "--snap", "0.016", "-q"]


@pytest.fixture
def snapshots(tiny_run):
    """Two snapshots of one run."""
    return [tiny_run / f"snapshot-000000.0{kimg}.safetensors" for kimg in (16, 32)]


@pytest.fixture(scope="module")
def child(sgan, tiny_run, rgba_set, tmp_path_factory):
    """The snapshot of a run that was fine-tuned from the first snapshot of `tiny_run`."""
    start, runs = tiny_run / "snapshot-000000.016.safetensors", tmp_path_factory.mktemp("child")
    result = sgan("train", "--resume", start, "--data", rgba_set, "--runs", runs, *TINY)
    return Path(result.stdout.strip()) / "snapshot-000000.016.safetensors"


@pytest.fixture(scope="module")
def stranger(sgan, tiny_run, rgba_set, tmp_path_factory):
    """The snapshot of an unrelated run, with networks of the same sizes."""
    networks = ["--cbase", "64", "--cmax", "8", "--map-depth", "2", "--seed", "5"]
    result = sgan("train", "--data", rgba_set, "--runs", tmp_path_factory.mktemp("stranger"), *TINY, *networks)
    return Path(result.stdout.strip()) / "snapshot-000000.016.safetensors"


@pytest.fixture
def saved(sgan, tmp_path):
    """Save the latents of seed 3: saved(snapshot) -> file."""

    def save(snapshot):
        folder = tmp_path / f"saved-{snapshot.parent.parent.name}"
        sgan("generate", "--model", snapshot, "--seeds", "3", "--save-w", "--outdir", folder, "-q")
        return folder / "w.npz"

    return save


def test_snapshots_of_one_run_know_each_other(sgan, snapshots, saved, tmp_path):
    earlier, later = snapshots
    file, name = saved(earlier), load_snapshot(earlier).fingerprint
    line = ["generate", "--model", later, "--from-w", file, "--outdir", tmp_path / "later"]
    note = f"{file} belongs to another snapshot of this run, {name}."
    assert note in sgan(*line).stderr
    (path,) = (tmp_path / "later").glob("*.png")
    image = Image.open(path)
    assert image.text["model_note"] == note and image.text["model"] == load_snapshot(later).fingerprint
    # The later snapshot's image of the earlier one's latents, computed without the files.
    ws = load_latent_file(file).ws
    G = load_snapshot(later).G
    expected = (G.synthesis(ws) * 127.5 + 128).clamp(0, 255)[0]
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert abs(expected.numpy() - pixels).max() <= 1.5
    own = sgan("generate", "--model", earlier, "--from-w", file, "--outdir", tmp_path / "own")
    assert "belongs" not in own.stderr


def test_a_resumed_run_is_the_same_run(sgan, snapshots, saved, tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / tiny_run.name)
    sgan("train", "--resume", folder, "--kimg", "0.048", "-q")
    resumed = folder / "snapshot-000000.048.safetensors"
    assert read_info(resumed).run == read_info(snapshots[0]).run != ""
    line = ["generate", "--from-w", saved(snapshots[0]), "--outdir", tmp_path / "out"]
    assert "another snapshot of this run" in sgan(*line, "--model", resumed).stderr


@pytest.mark.parametrize(
    ("model", "other", "relation"),
    [
        ("child", "parent", "; this model was fine-tuned from that one or from its run"),
        ("child", "sibling", "; this model was fine-tuned from that one or from its run"),
        ("parent", "child", "; that model was fine-tuned from this one or from its run"),
        ("sibling", "child", "; that model was fine-tuned from this one or from its run"),
        ("stranger", "parent", ""),
        ("parent", "stranger", ""),
    ],
)
def test_other_runs_are_refused_and_the_relation_is_named(
    sgan, snapshots, child, stranger, saved, tmp_path, model, other, relation
):
    models = {"parent": snapshots[0], "sibling": snapshots[1], "child": child, "stranger": stranger}
    line = ["generate", "--model", models[model], "--from-w", saved(models[other]), "--outdir", tmp_path / "out"]
    refused = sgan(*line, code=1)
    names = [load_snapshot(models[which]).fingerprint for which in (other, model)]
    message = f"belongs to the model with fingerprint {names[0]}, not to this one, {names[1]}{relation}.\n"
    assert message in refused.stderr and "--any-model" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert f"belongs to another model, {names[0]}{relation}." in sgan(*line, "--any-model").stderr


def test_lineage(snapshots, child):
    parent, info = load_snapshot(snapshots[0]), read_info(child)
    assert info.origins == (parent.fingerprint, parent.info.run) and parent.info.origins == ()
    assert len({info.run, parent.info.run, ""}) == 3
    assert load_snapshot(child).lineage == (load_snapshot(child).fingerprint, info.run, *info.origins)


def test_every_command_that_reads_latents(sgan, snapshots, stranger, saved, tmp_path):
    earlier, later = snapshots
    file, directions = saved(earlier), tmp_path / "directions-x.npz"
    sgan("edit", "find", "--model", earlier, "--num", "40", "--count", "2", "--out", directions, "-q")
    image = next(file.parent.glob("*.png"))
    sgan("project", image, "--model", earlier, "--loss", "pixel", "--steps", "2", "--tune", "2", "--outdir", tmp_path)
    for number, line in enumerate(
        (
            ["mix", "--rows", file, "--cols", "1"],
            ["noise", "--seeds", file],
            ["edit", "show", "--directions", directions, "--seeds", "1"],
            ["edit", "apply", "--directions", directions, "--seeds", file],
            ["project", image, "--init", file, "--loss", "pixel", "--steps", "2"],
            ["generate", "--from-w", tmp_path / "projected.npz"],
        )
    ):
        line += ["--outdir", tmp_path / str(number)]
        refused = sgan(*line, "--model", stranger, code=1).stderr
        assert "--any-model" in refused and f"It was made with --model {earlier}" in refused
        assert "belongs to another model" in sgan(*line, "--model", stranger, "--any-model", "-q").stderr
        assert any("model_note" in Image.open(path).text for path in (tmp_path / str(number)).glob("*.png")), line
        assert "belongs to another snapshot of this run" in sgan(*line, "--model", later, "-q").stderr


def test_files_without_a_run_are_refused(sgan, snapshots, saved):
    """Also if they claim anything else: the settings are not checked when a file is read."""
    file = saved(snapshots[0])
    with np.load(file) as f:
        arrays = dict(f)
    for settings in ({}, {"run": ""}, {"run": [1], "origins": 3}, {"origins": [[1], {}]}):
        np.savez(file, **arrays | {"settings": json.dumps(settings)})
        line = ["generate", "--model", snapshots[1], "--from-w", file, "--outdir", file.parent / "out"]
        assert "belongs to the model with fingerprint" in sgan(*line, code=1).stderr


def test_the_shape_still_has_to_match(sgan, snapshots, class_run, saved, tmp_path):
    line = ["generate", "--model", class_run, "--from-w", saved(snapshots[0]), "--any-model", "--outdir", tmp_path]
    assert "8 layers; this model has 6" in sgan(*line, code=1).stderr
