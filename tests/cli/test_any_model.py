"""`--any-model`: files of latents and directions on a later snapshot, with a note in the images."""

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.sampling.latent_files import load_latent_file
from stylegan_cli.snapshot import load_snapshot


@pytest.fixture
def snapshots(tiny_run):
    """Two snapshots of one run."""
    return [tiny_run / f"snapshot-000000.0{kimg}.safetensors" for kimg in (16, 32)]


def test_latents_on_a_later_snapshot(sgan, snapshots, tmp_path):
    earlier, later = snapshots
    sgan("generate", "--model", earlier, "--seeds", "3", "--save-w", "--outdir", tmp_path, "-q")
    (file,) = tmp_path.glob("*.npz")
    line = ["generate", "--model", later, "--from-w", file, "--outdir", tmp_path / "later"]
    refused = sgan(*line, code=1)
    assert "belongs to the model with fingerprint" in refused.stderr and "--any-model" in refused.stderr
    assert not (tmp_path / "later").exists()
    name = load_snapshot(earlier).fingerprint
    assert f"{file} belongs to another model, {name}." in sgan(*line, "--any-model").stderr
    (path,) = (tmp_path / "later").glob("*.png")
    image = Image.open(path)
    assert name in image.text["any_model"] and image.text["model"] == load_snapshot(later).fingerprint
    # The later snapshot's image of the earlier one's latents, computed without the files.
    ws = load_latent_file(file).ws
    G = load_snapshot(later).G
    expected = (G.synthesis(ws) * 127.5 + 128).clamp(0, 255)[0]
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert abs(expected.numpy() - pixels).max() <= 1.5


def test_every_command_that_reads_latents(sgan, snapshots, tmp_path):
    earlier, later = snapshots
    sgan("generate", "--model", earlier, "--seeds", "3", "--save-w", "--outdir", tmp_path, "-q")
    (file,) = tmp_path.glob("*.npz")
    directions = tmp_path / "directions-x.npz"
    sgan("edit", "find", "--model", earlier, "--num", "40", "--count", "2", "--out", directions, "-q")
    image = next(tmp_path.glob("*.png"))
    for number, line in enumerate(
        (
            ["mix", "--rows", file, "--cols", "1"],
            ["noise", "--seeds", file],
            ["edit", "show", "--directions", directions, "--seeds", "1"],
            ["edit", "apply", "--directions", directions, "--seeds", file],
            ["project", image, "--init", file, "--loss", "pixel", "--steps", "2"],
        )
    ):
        line += ["--model", later, "--outdir", tmp_path / str(number)]
        assert "--any-model" in sgan(*line, code=1).stderr
        assert "belongs to another model" in sgan(*line, "--any-model", "-q").stderr
        assert any("any_model" in Image.open(path).text for path in (tmp_path / str(number)).glob("*.png")), line


def test_the_shape_still_has_to_match(sgan, snapshots, class_run, tmp_path):
    sgan("generate", "--model", snapshots[0], "--seeds", "3", "--save-w", "--outdir", tmp_path, "-q")
    (file,) = tmp_path.glob("*.npz")
    result = sgan("generate", "--model", class_run, "--from-w", file, "--any-model", "--outdir", tmp_path, code=1)
    assert "8 layers; this model has 6" in result.stderr
