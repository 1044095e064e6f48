"""Every command on models of families beside the StyleGANs: DCGAN, SNGAN, SAGAN, BigGAN, and R3GAN without and with
styles."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.runs import latest_snapshot
from stylegan_cli.snapshot import load_snapshot

pytestmark = pytest.mark.usefixtures("detectors")


def pixels(path):
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("cfg", ["dcgan", "sngan", "sagan", "biggan", "r3gan", "style-r3gan"])
def test_a_run_and_what_can_be_done_with_its_model(sgan, rgb_set, tmp_path, cfg):
    short = ["--batch", "8", "--kimg", "0.032", "--snap", "0.032", "-q"]
    line = ["train", "--data", rgb_set, "--cond", "hat", "--runs", tmp_path / "runs", "--metrics", "fid40_full"]
    run = Path(sgan(*line, "--cfg", cfg, "--cbase", "64", "--cmax", "8", *short).stdout.strip())
    file, model, out = latest_snapshot(run), ["--model", run], tmp_path / "out"
    snapshot = load_snapshot(file)
    assert snapshot.G.config.family == cfg and snapshot.D is not None
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    losses = {name: value for row in rows for name, value in row.items() if name.startswith("loss/")}
    assert {"loss/G", "loss/D"} <= losses.keys() and all(map(np.isfinite, losses.values()))

    line = ["generate", *model, "--outdir", out, "-q"]
    sgan(*line, "--seeds", "0-1", "--class", "1", "--trunc", "0.7", "--save-w")
    first = pixels(out / "seed0000.png")
    assert np.abs(first - pixels(out / "seed0001.png")).max() > 0
    sgan("generate", *model, "--from-w", out / "w.npz", "--outdir", tmp_path / "again", "-q")
    again = [pixels(path) for path in sorted((tmp_path / "again").glob("*.png"))]
    assert len(again) == 2 and np.abs(again[0] - first).max() <= 1
    sgan("interpolate", *model, "--outdir", tmp_path / "video", "--seeds", "1,2", "--frames", "2", "--class", "0")
    assert any((tmp_path / "video").iterdir())

    line = ["mix", *model, "--rows", "0", "--cols", "1", "--outdir", tmp_path / "mix", "--class", "1"]
    if cfg in ("biggan", "style-r3gan"):  # each block has a latent
        sgan(*line, "--styles", "1")
        pixels(tmp_path / "mix" / "mix0000-0001.png")
    else:
        error = sgan(*line, code=1).stderr
        assert "has one latent for all layers, so there are no styles" in error
        assert f"sgan interpolate --seeds 1,2 --model {file}\n" in error
        error = sgan("encode", out / "seed0000.png", *model, "--runs", tmp_path / "none", code=1).stderr
        assert "Train a model with its encoder: sgan train --recipe bigan\n" in error
        assert not (tmp_path / "mix").exists()

    line = ["project", *model, out / "seed0000.png", "--steps", "3", "--loss", "pixel", "--json", "-q"]
    json.loads(sgan(*line, "--outdir", tmp_path / "projected").stdout)
    with np.load(tmp_path / "projected" / "projected.npz") as found:
        assert np.isfinite(found["w"]).all() and found["w"].shape[-2:] == (snapshot.G.num_ws, snapshot.G.config.w_dim)
    sgan("edit", "find", *model, "--outdir", tmp_path / "edit", "--method", "sefa", "--count", "2", "-q")

    (trained,) = (json.loads(line) for line in (run / "metric-fid40_full.jsonl").read_text().splitlines())
    measured = sgan("metrics", "fid", "is", "ppl", "--num", "40", "--model", file, "-q").stdout.splitlines()
    values = {name: float(value) for name, value, *_ in map(str.split, measured)}
    assert values["fid40_full"] == pytest.approx(trained["value"], rel=1e-3)
    assert all(np.isfinite(value) for value in values.values()) and any(name.startswith("ppl") for name in values)
    assert cfg in sgan("model", "info", run).stdout.lower()
    sgan("train", "--resume", run, "--kimg", "0.04", "-q")
    assert latest_snapshot(run) != file
    line = ["train", "--resume", file, "--data", rgb_set, "--cond", "hat", "--runs", tmp_path / "more", "-q"]
    sgan(*line, "--cfg", cfg, "--batch", "8", "--kimg", "0.008", "--snap", "0.008")


@pytest.mark.parametrize(
    ("cfg", "options", "words"),
    [
        ("sngan", ["--size", "8"], "Images of 8x8 (height x width) have no level above 8, where these networks begin."),
        ("lapgan", ["--size", "8"], "Use larger images, such as --size 16, or another --cfg."),
        ("stackgan", ["--size", "8"], "are too small for two stages"),
        ("dcgan", ["--size", "4"], "The nearest sizes are 6x6, "),
        ("sagan", ["--freezed", "20"], "--freezed is 20, but the discriminator has "),
        ("dcgan", ["--loss", "wgan"], "has batch normalization, with which each output depends on the whole batch"),
        ("stackgan", ["--loss", "wgan"], "has batch normalization, with which each output depends on the whole batch"),
        ("sngan", ["--loss", "wgan", "--gamma", "1"], "--gamma has no effect with --loss wgan."),
        ("biggan", ["--loss", "wgan", "--r2", "1"], "--r2 has no effect with --loss wgan."),
        ("lapgan", ["--loss", "wgan", "--aug", "ada"], "--aug ada does not work with --loss wgan"),
        ("r3gan", ["--gp", "1"], "--gp has no effect with --loss relativistic."),
        (
            "sagan",
            ["--cond", "--recipe", "bigan"],
            "--recipe bigan cannot be combined with --cond: ",
        ),
        ("lapgan", ["--cond", "--recipe", "bigan"], "--recipe bigan does not apply to LAPGAN models."),
        ("stackgan", ["--cond", "--aux-classifier"], "--aux-classifier does not apply to StackGAN models."),
        ("dcgan", ["--aux-classifier"], "--aux-classifier needs labels."),
        ("dcgan", ["--cond", "--info", "3"], "--info and --cond cannot be combined"),
        ("sngan", ["--mixing-prob", "0.5"], "which have one latent for all layers."),
        ("sngan", ["--grow-from", "8"], "The networks of --cfg sngan do not support growing."),
        ("dcgan", ["--stage-kimg", "1"], "--stage-kimg has no effect on DCGAN models."),
    ],
)
def test_what_a_family_cannot_do_is_said_before_anything_starts(sgan, rgb_set, tmp_path, cfg, options, words):
    for dry in ([], ["--dry-run"]):
        line = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", "--cfg", cfg, *options, *dry]
        error = sgan(*line, code=2).stderr
        assert words in error and error.startswith("Error: ") and len(error.splitlines()) == 2
    assert not (tmp_path / "runs").exists()
