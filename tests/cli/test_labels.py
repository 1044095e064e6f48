"""Labels from the images to the generated image: class names, and vectors of numbers as conditions."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.images import read_metadata
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.snapshot import load_snapshot

TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--kimg", "0.016", "--snap", "0.016", "-q"]
VECTORS = [[round(0.1 * i, 1), i % 2] for i in range(16)]


def png(i):
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def numbered_run(sgan, tmp_path_factory):
    """A run on class folders 1 to 11, whose classes are named by numbers that are not their indices."""
    work = tmp_path_factory.mktemp("numbered")
    for i in range(1, 12):
        (work / "src" / str(i)).mkdir(parents=True)
        (work / "src" / str(i) / "a.png").write_bytes(png(i))
    sgan("data", "pack", work / "src", work / "set.zip", "--labels", "folders", "-q")
    return Path(sgan("train", "--data", work / "set.zip", "--cond", "--runs", work / "runs", *TINY).stdout.strip())


@pytest.fixture(scope="session")
def vector_run(sgan, tmp_path_factory):
    """A run on images that are labeled with an age and a smile."""
    work = tmp_path_factory.mktemp("vectors")
    with zipfile.ZipFile(work / "faces.zip", "w") as z:
        for i in range(16):
            z.writestr(f"{i:02d}.png", png(i))
        labels = [[f"{i:02d}.png", v] for i, v in enumerate(VECTORS)]
        z.writestr("dataset.json", json.dumps({"labels": labels, "sgan": {"classes": ["age", "smile"]}}))
    return Path(sgan("train", "--data", work / "faces.zip", "--cond", "--runs", work / "runs", *TINY).stdout.strip())


def snapshot(run):
    return load_snapshot(next(run.glob("snapshot-*.safetensors")))


def record_of(sgan, run, out, *args):
    sgan("generate", "--model", run, "--seeds", "3", "--outdir", out, "-q", *args)
    return read_metadata(out / "seed0003.png")


def test_class_names_are_shown(sgan, class_run, numbered_run, tmp_path):
    assert "Classes        0 flat, 1 none, 2 tall" in sgan("model", "info", class_run).stdout
    names = "0 1, 1 2, 2 3, 3 4, 4 5, 5 6, 6 7, 7 8, 8 9, 9 10, 10 11"
    assert f"Classes        {names}" in sgan("model", "info", numbered_run).stdout
    result = sgan("generate", "--model", class_run, "--seeds", "0-3", "--class", "tall", "--outdir", tmp_path)
    assert "Classes: tall (4)." in result.stderr


def test_class_by_name(sgan, class_run, tmp_path):
    by_name = record_of(sgan, class_run, tmp_path / "a", "--class", "tall")
    record_of(sgan, class_run, tmp_path / "b", "--class", "2")
    assert (by_name["class"], by_name["class_name"]) == ("2", "tall")
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / d / "seed0003.png")) for d in "ab"))
    result = sgan("generate", "--model", class_run, "--class", "tal", "--outdir", tmp_path / "c", code=1)
    assert "no class 'tal'" in result.stderr and "Did you mean tall?" in result.stderr
    assert not (tmp_path / "c").exists()


def test_numerals_name_their_folder(sgan, numbered_run, tmp_path):
    record = record_of(sgan, numbered_run, tmp_path, "--class", "10")
    assert (record["class"], record["class_name"]) == ("9", "10")
    assert record_of(sgan, numbered_run, tmp_path, "--class", "11")["class"] == "10"


def test_vectors_are_conditions(sgan, vector_run, tmp_path):
    G, info = snapshot(vector_run).G, snapshot(vector_run).info
    assert G.config.c_dim == 2 and info.data.classes == ("age", "smile")
    assert np.allclose(info.data.vectors, VECTORS)
    shown = sgan("model", "info", vector_run).stdout
    assert "Labels         age, smile" in shown and ", 2 label values, " in shown and "classes" not in shown
    record = record_of(sgan, vector_run, tmp_path, "--class", "0.7,-2", "--format", "png", "--noise-mode", "none")
    assert record["class"] == "0.7,-2"
    z = latents_from_seeds([3], G.config.z_dim)
    expected = G.synthesis(G.mapping(z, torch.tensor([[0.7, -2.0]])), noise="none")
    expected = (expected * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
    assert np.abs(np.asarray(Image.open(tmp_path / "seed0003.png")).astype(int) - expected.numpy()).max() <= 1
    assert record_of(sgan, vector_run, tmp_path, "--class", "smile")["class"] == "0,1"
    sampled = [float(x) for x in record_of(sgan, vector_run, tmp_path)["class"].split(",")]
    assert any(np.allclose(sampled, v) for v in VECTORS)
    result = sgan("generate", "--model", vector_run, "--class", "1,2,3", "--outdir", tmp_path / "x", "-q", code=1)
    assert "2 numbers, not 3" in result.stderr


@pytest.mark.parametrize("command", ["mix", "interpolate", "project"])
def test_vectors_with_other_commands(sgan, vector_run, tmp_path, command):
    (tmp_path / "face.png").write_bytes(png(0))
    args = {
        "mix": ["--rows", "1", "--cols", "2"],
        "interpolate": ["--seeds", "1-2", "--frames", "2", "--kind", "slerp", "--out", "a.gif"],
        "project": [tmp_path / "face.png", "--steps", "2", "--space", "z", "--loss", "discriminator"],
    }[command]
    sgan(command, *args, "--model", vector_run, "--class", "0.5,1", "--outdir", tmp_path / "o", "-q")
    files = [f for f in (tmp_path / "o").iterdir() if f.suffix in (".png", ".gif")]
    assert files and all(read_metadata(f)["class"] == "0.5,1" for f in files)
    sgan(command, *args, "--model", vector_run, "--outdir", tmp_path / "p", "-q")  # sampled


def test_run_on_vectors_resumes(sgan, vector_run, tmp_path):
    import shutil

    shutil.copytree(vector_run, tmp_path / "run")
    sgan("train", "--resume", tmp_path / "run", "--kimg", "0.024", "-q")
    assert (tmp_path / "run" / "snapshot-000000.024.safetensors").is_file()


def test_classifier_needs_classes(sgan, vector_run, tmp_path):
    path = snapshot(vector_run).info.data.path
    line = ["train", "--data", path, "--cond", "--aux-classifier", "--runs", tmp_path, "--dry-run"]
    assert "needs classes, but the labels are vectors" in sgan(*line, code=1).stderr


def test_unused_labels_do_not_stop_training(sgan, vector_run, tmp_path):
    path = snapshot(vector_run).info.data.path
    assert '"c_dim": 0' in sgan("train", "--data", path, "--runs", tmp_path, "--dry-run").stdout


def test_training_says_which_files_it_does_not_take(sgan, tmp_path):
    for i in range(4):
        path = tmp_path / "faces" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.open(BytesIO(png(i))).convert("RGBA").save(path)
    (tmp_path / "faces" / "notes.txt").write_text("x")
    (tmp_path / "faces" / ".hidden").write_text("x")
    line = ["train", "--data", tmp_path / "faces", "--runs", tmp_path / "runs", "--dry-run"]
    errors = sgan(*line).stderr
    assert "Skipped 1 file of" in errors and "notes.txt (not a PNG" in errors and "--channels 3" in errors
    assert sgan(*line, "-q").stderr == ""
