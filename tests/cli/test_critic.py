"""`sgan critic fit`, what `sgan model info` says of its file, and `sgan train --guide`, end to end."""

import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.sampling.critics import CRITIC_FILE
from stylegan_cli.training.recipes import classifier

TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--kimg", "0.032", "--snap", "0.016", "-q"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """80 images with the attribute tone, which is easy to see."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("critic") / "tones.zip"
    with zipfile.ZipFile(path, "w") as z:
        for i in range(80):
            buffer = BytesIO()
            pixels = rng.integers(0, 60, (16, 16, 3)) + (140 if i % 2 else 20)
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            z.writestr(f"{i:04d}.png", buffer.getvalue())
        tones = ["light" if i % 2 else "dark" for i in range(80)]
        z.writestr("dataset.json", json.dumps({"labels": None, "attributes": {"tone": tones}}))
    return path


@pytest.fixture
def fit(sgan, data, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "_STEPS", 40)
    monkeypatch.setattr(classifier, "_EPOCHS", 1)

    def run(*args, attribute="tone=light", code=0):
        folder = ["--outdir", tmp_path / "out"]
        return sgan("critic", "fit", "--data", data, "--attribute", attribute, *folder, *args, code=code)

    return run


def test_a_critic_guides_a_run(sgan, fit, rgb_set, tmp_path):
    result = fit()
    path = tmp_path / "out" / "critic-tone-light.safetensors"
    assert result.stdout == f"{path}\n" and "held-out images are judged correctly" in result.stderr
    shown = sgan("model", "info", path).stdout
    for words in ("critic of stylegan_cli", "tone=light", "16x16 (height x width) RGB", "Held out: skill", "tones.zip"):
        assert words in shown, shown
    facts = json.loads(sgan("model", "info", path, "--json").stdout)
    assert facts["info"]["value"] == "light" and facts["skill"] > 0.8
    options = ["--guide", path, "--guide-weight", "3", "--guide-discriminator", "0.1"]
    folder = sgan("train", "--data", rgb_set, "--runs", tmp_path / "runs", *TINY, *options).stdout.strip()
    (guide,) = json.loads((tmp_path / "runs" / "00000-rgb-auto" / "config.json").read_text())["guides"]
    assert (guide["path"], guide["weight"], guide["discriminator_weight"]) == (str(path), 3, 0.1)
    lines = [json.loads(line) for line in (tmp_path / folder / "stats.jsonl").read_text().splitlines()]
    assert any(line.get("loss/guide tone=light", 0) > 0 for line in lines)
    assert "tone=light" in (tmp_path / folder / "log.txt").read_text()
    other = sgan("train", "--resume", folder, "--kimg", "0.064", "--guide", path, code=2)
    assert "--guide cannot be changed when a run is resumed" in other.stderr
    sgan("train", "--resume", folder, "--kimg", "0.048", "-q")
    path.unlink()
    (copy,) = (tmp_path / folder).glob("critic-*.safetensors")
    assert "Settings changed" not in sgan("train", "--resume", folder, "--kimg", "0.056").stderr
    copy.unlink()
    assert "does not exist" in sgan("train", "--resume", folder, "--kimg", "0.064", code=1).stderr


def test_early_images_of_a_run(sgan, fit, rgb_set, tmp_path):
    folder = sgan("train", "--data", rgb_set, "--runs", tmp_path / "runs", *TINY).stdout.strip()
    result = fit("--junk", folder, "--json", "--out", "dark.safetensors", attribute="tone=dark")
    facts = json.loads(result.stdout)
    assert facts["file"] == str(tmp_path / "out" / "dark.safetensors") and 0 <= facts["junk_rejected"] <= 1
    assert CRITIC_FILE.read_info(facts["file"]).junk == folder
    path = next((tmp_path / folder).glob("snapshot-*.safetensors"))
    short = ["--batch", "8", "--kimg", "0.016", "--snap", "0.016", "-q"]
    tuned = sgan("train", "--resume", path, "--runs", tmp_path / "tuned", *short).stdout.strip()
    assert "started from trained weights" in fit("--junk", tuned, code=1).stderr


@pytest.mark.parametrize(
    ("attribute", "code", "words"),
    [
        ("tone", 2, "is not NAME=VALUE"),
        ("=light", 2, "is not NAME=VALUE"),
        ("tune=light", 1, "Did you mean tone?"),
        ("tone=lite", 1, "Did you mean light?"),
    ],
)
def test_attributes_that_are_refused(fit, tmp_path, attribute, code, words):
    result = fit("-q", attribute=attribute, code=code)
    assert words in result.stderr and result.stdout == ""
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_invisible_attributes_and_missing_runs(sgan, rgb_set, fit, tmp_path):
    short = ["critic", "fit", "--data", rgb_set, "--outdir", tmp_path]
    assert "cannot be recognized" in sgan(*short, "--attribute", "hat=tall", code=1).stderr
    assert "is not a run folder" in fit("--junk", tmp_path / "missing", code=1).stderr
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_guides_of_new_runs_are_checked_first(sgan, fit, rgb_set, rgba_set, tmp_path):
    path = fit("-q").stdout.strip()
    runs = ["--runs", tmp_path / "runs", *TINY]
    for data, options, code, words in (
        (rgb_set, ["--guide-weight", "2"], 2, "no effect without --guide"),
        (rgba_set, ["--guide", path], 1, "images with 3 channels"),
        (rgb_set, ["--guide", path, "--guide", path], 2, "Two guides are for tone=light"),
        (rgb_set, ["--guide", rgb_set], 1, "not an attribute critic, or it is damaged"),
    ):
        assert words in sgan("train", "--data", data, *runs, *options, code=code).stderr
    assert not (tmp_path / "runs").exists()
