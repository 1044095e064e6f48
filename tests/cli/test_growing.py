"""Progressive growing in both families that support it, and all other commands on the resulting models."""

import json

import numpy as np
import pytest
from PIL import Image

TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--mbstd-group", "4"]
GROWING = ["--grow-kimg", "0.016", "--fade-kimg", "0.016", "--kimg", "0.08", "--snap", "0.008", "-q"]


@pytest.fixture(scope="module", params=["stylegan", "progan"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def run(sgan, family, rgb_set, tmp_path_factory):
    """The folder of a run that grew from 4 to 16, with a snapshot of every step."""
    from pathlib import Path

    runs = tmp_path_factory.mktemp("runs")
    depth = ["--map-depth", "2"] if family == "stylegan" else []
    options = ["--data", rgb_set, "--cfg", family, "--grow-from", "4", "--grow-batch", "4:16", "--grow-lr", "16:0.002"]
    return Path(sgan("train", *options, *TINY, *depth, *GROWING, "--runs", runs).stdout.strip())


@pytest.fixture(scope="module", params=["000000.016", "000000.024", "000000.080"])
def model(request, run):
    """At 4 x 4, in the middle of a fade to 8 x 8, and at the end."""
    return run / f"snapshot-{request.param}.safetensors"


@pytest.fixture
def side(model):
    return {"016": 4, "024": 8, "080": 16}[model.stem[-3:]]


def size(path):
    with Image.open(path) as image:
        return image.size


def test_growing_run(run):
    log = (run / "log.txt").read_text()
    assert "8x8 fades in, batch 8, learning rate" in log and "16x16 has faded in, batch 8, learning rate 0.002" in log
    assert (run / "phases.png").is_file()
    config = json.loads((run / "config.json").read_text())
    assert config["growth"]["start"] == 4 and config["growth"]["batch"] == [16, 8, 8]


def test_generate_mix_interpolate_noise(sgan, family, model, side, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sgan("generate", "--model", model, "--seeds", "0-2", "--trunc", "0.7", "--outdir", "images")
    assert size(tmp_path / "images" / "seed0000.png") == (side, side)
    sgan("interpolate", "--model", model, "--seeds", "0-1", "--frames", "3", "--out", "way.gif", "-q")
    if family == "stylegan":
        sgan("noise", "--model", model, "--seeds", "1", "-q")
        sgan("mix", "--model", model, "--rows", "1-2", "--cols", "3-4", "--styles", "1")
    else:
        assert "has no noise inputs" in sgan("noise", "--model", model, "--seeds", "1", "-q", code=1).stderr
    enough = family == "stylegan"
    mixed = sgan("mix", "--model", model, "--rows", "1-2", "--cols", "3-4", code=0 if enough else 1)
    assert enough or "no styles to choose or to mix" in mixed.stderr


def test_project_and_edit(sgan, family, model, side, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (side, side), (200, 30, 90)).save("target.png")
    sgan("project", "target.png", "--model", model, "--loss", "pixel", "--steps", "3", "-q")
    ws = np.load("out/projected.npz")["w"]
    assert ws.shape[0] == 1 and np.isfinite(ws).all()
    sgan("project", "target.png", "--model", model, "--loss", "discriminator", "--steps", "2", "-q")
    for method in ("pca", "sefa"):
        sgan("edit", "find", "--model", model, "--method", method, "--num", "20", "--count", "2", "-q")
        sgan("edit", "show", "--model", model, "--directions", f"out/directions-{method}.npz", "--seeds", "1", "-q")
        strips = sorted(tmp_path.glob("out/strip*.png"))
        assert len(strips) == 2
        for strip in strips:
            strip.unlink()


def test_convert_and_info(sgan, family, model, side, tmp_path):
    text = sgan("model", "info", model).stdout
    assert f"{side} x {side}" in text or f"{side}x{side}" in text
    sgan("convert", model, tmp_path / "half.safetensors", "--half")
    for name, options in (("a.pt", []), ("a.pkl", ["--for", "ada"])):
        refused = sgan("convert", model, tmp_path / name, *options, code=1)
        assert len(refused.stderr.strip().splitlines()) <= 3 and not (tmp_path / name).exists()


def test_runs(sgan, run):
    assert run.name in sgan("runs", "--runs", run.parent).stdout
    sgan("runs", "show", run, "--out", run / "page.html")
    assert (run / "page.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--cfg", "stylegan", "--grow-from", "4", "--kimg", "1"],
            "Growing reaches 16x16 at 2400.26 kimg, but the run ends at 1",
        ),
        (
            ["--cfg", "stylegan", "--grow-from", "64"],
            "Growing cannot start at level 64: images of 16x16 have the levels 4, 8, 16",
        ),
        (["--cfg", "auto", "--grow-from", "4"], "The networks of --cfg auto do not support growing"),
        (["--cfg", "auto", "--grow-batch", "4:16"], "--grow-batch has no effect"),
        (["--cfg", "stylegan", "--grow-batch", "32:16"], "does not grow through level 32"),
        (["--cfg", "stylegan", "--freezed", "1"], "--freezed cannot be combined"),
        (["--cfg", "progan", "--gamma", "1"], "wgan"),
        (["--cfg", "stylegan", "--aux-classifier"], "label"),
        (["--cfg", "stylegan", "--gp", "1"], "--gp"),
    ],
)
def test_bad_options_are_refused_before_training(sgan, rgb_set, tmp_path, options, words):
    for dry in ([], ["--dry-run"]):
        result = sgan("train", "--data", rgb_set, "--runs", tmp_path / "runs", *options, *dry, code=2)
        assert words in result.stderr and len(result.stderr.strip().splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["4", "4:x", "a:3", "4:-1", "4:nan", "4:8;8:16", "4:8,4:16"])
def test_bad_lists_of_levels(sgan, rgb_set, value):
    for option in ("--grow-batch", "--grow-lr"):
        result = sgan("train", "--data", rgb_set, "--cfg", "stylegan", option, value, code=2)
        assert f"'{value}' is not a valid list of levels. Use LEVEL:NUMBER pairs" in result.stderr
