"""`sgan encoder fit` end to end: a run, resumed, refused, interrupted, and shown by `sgan runs`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling.encoders import ENCODER_FILE
from stylegan_cli.snapshot import load_snapshot, save_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

SHORT = ["--kimg", "0.032", "--snap", "0.016", "--batch", "8", "--held-out", "4"]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def assert_error(result, *words):
    """A sentence and at most a hint, without a traceback, that contain all words."""
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) <= 5
    assert result.stderr.startswith(("Error: ", "Usage: ")), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.fixture
def fit(sgan, class_run, tmp_path):
    def run(*args, model=class_run, short=SHORT, code=0):
        quiet = ["-q"] if code else []  # without the line about the model
        return sgan("encoder", "fit", "--model", model, "--runs", tmp_path / "runs", *short, *args, *quiet, code=code)

    return run


def test_what_is_printed(fit, tmp_path):
    result = fit()
    folder = tmp_path / "runs" / "00000-rgb-encoder"
    assert result.stdout == f"{folder}\n"
    assert "Fitting an encoder on 28 images of 16x16 (height x width)" in result.stderr
    assert "4 more are held out" in result.stderr and "PSNR" in result.stderr
    assert f"sgan encode IMAGE --encoder {folder}" in result.stderr
    image = next(line.split()[1] for line in result.stderr.splitlines() if line.startswith("Images:"))
    assert Path(image).is_file()


def test_a_run_is_resumed_from_any_folder(sgan, fit, rgb_set, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(rgb_set).parent)
    folder = Path(fit("--data", Path(rgb_set).name, "-q").stdout.strip())
    monkeypatch.chdir(tmp_path)
    sgan("encoder", "fit", "--resume", folder, "--kimg", "0.048", "-q")
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).kimg == 0.048


def test_quiet(fit, tmp_path):
    """Only what to do next is printed, as by `sgan train`."""
    result = fit("-q")
    assert result.stdout == f"{tmp_path / 'runs' / '00000-rgb-encoder'}\n"
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["Images", "Use it", "Continue"]


def test_options_reach_the_run(fit, rgb_set, tmp_path):
    options = ["--space", "w", "--passes", "2", "--loss", "pixel", "--editable", "--lr", "0.001", "--seed", "5"]
    fit(*options, "--data", rgb_set, "--batch-gpu", "4", "--precision", "tf32", "-q")
    config = json.loads((tmp_path / "runs" / "00000-rgb-encoder" / "config.json").read_text())
    assert (config["encoder"]["space"], config["encoder"]["passes"], config["loss"]) == ("w", 2, "pixel")
    assert (config["lr"], config["seed"], config["batch_gpu"]) == (0.001, 5, 4) and config["critic_weight"] > 0
    assert config["precision"] == "tf32"


def test_resume(sgan, fit, tmp_path):
    folder = Path(fit("-q").stdout.strip())
    assert_error(sgan("encoder", "fit", "--resume", folder, "-q", code=1), "complete at 0.032 kimg", "--kimg")
    result = sgan("encoder", "fit", "--resume", folder, "--kimg", "0.048", "-q")
    assert result.stdout == f"{folder}\n" and names(tmp_path / "runs") == [folder.name]
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).kimg == 0.048
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for options in (
        ["--batch", "4"],
        ["--lr", "1"],
        ["--seed", "1"],
        ["--editable"],
        ["--data", "a"],
    ):
        refused = sgan("encoder", "fit", "--resume", folder, "--kimg", "1", *options, code=2)
        assert_error(refused, options[0], "cannot be changed when a run is resumed")
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_model_is_the_newest_of_the_runs(sgan, class_run, tmp_path):
    """A run of an encoder has no model, so that the next commands still use the same one."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / class_run.name).symlink_to(class_run)
    folder = Path(sgan("encoder", "fit", "--runs", runs, *SHORT, "-q").stdout.strip())
    assert json.loads((folder / "config.json").read_text())["model"].endswith("snapshot-000000.032.safetensors")
    sgan("generate", "--runs", runs, "--seeds", "1", "--class", "0", "--outdir", tmp_path / "out", "-q")
    image = tmp_path / "out" / "seed0001.png"
    result = sgan("encode", image, "--runs", runs, "--outdir", tmp_path / "out")
    assert str(latest_snapshot(folder)) in result.stderr


def test_runs(sgan, fit, tmp_path):
    folder = Path(fit("-q").stdout.strip())
    (line,) = [x for x in sgan("runs", "--runs", tmp_path / "runs").stdout.splitlines() if folder.name in x]
    assert "complete" in line and "psnr" in line and "dB" in line
    (summary,) = json.loads(sgan("runs", "--runs", tmp_path / "runs", "--json").stdout)
    assert summary["state"] == "complete" and summary["best"] > 0
    page = Path(sgan("runs", "show", "--runs", tmp_path / "runs").stdout.strip()).read_text()
    for words in (
        "sgan encoder fit --resume",
        "sgan encode IMAGE --encoder",
        "PSNR of held-out",
        "followed by its reconstruction at <output",
    ):
        assert words in page, words
    assert "sgan generate" not in page and "sgan train" not in page and "held_out/" not in page


def test_model_info(sgan, fit, class_run):
    folder = Path(fit("-q").stdout.strip())
    text = sgan("model", "info", folder).stdout
    assert "16x16 (height x width) RGB, 6 latents of 512, space w+, 1 pass\n" in text and "Held out: psnr" in text
    assert load_snapshot(latest_snapshot(class_run)).fingerprint in text
    answer = json.loads(sgan("model", "info", latest_snapshot(folder), "--json").stdout)
    assert answer["info"]["task"] == "invert" and answer["parameters"]["E"] > 1000


def test_an_encoder_is_not_a_model(sgan, encoder_run, tmp_path):
    for line in (["generate"], ["mix"], ["encoder", "fit"]):
        result = sgan(*line, "--model", encoder_run, "--runs", tmp_path, "-q", code=1)
        assert_error(result, str(encoder_run), "is an encoder")
    assert not (tmp_path / "out").exists() and names(tmp_path) == []
    assert_error(sgan("train", "--resume", latest_snapshot(encoder_run), "--runs", tmp_path, code=1), "is an encoder")
    assert_error(sgan("train", "--resume", encoder_run, code=1), f"sgan encoder fit --resume {encoder_run}")
    assert_error(sgan("convert", encoder_run, tmp_path / "a.safetensors", code=1), "is an encoder")


def test_refused(sgan, fit, class_run, make_set, tmp_path):
    other = make_set(tmp_path / "wide.zip", (16, 32, 3))
    assert_error(fit("--data", other, code=1), "16x32", "16x16")
    assert_error(fit("--data", make_set(tmp_path / "gray.zip", (16, 16)), code=1), "1 channel", "3")
    assert_error(fit("--data", tmp_path / "none.zip", code=1), "none.zip", "does not exist")
    assert_error(fit("--held-out", "32", code=2), "--held-out 32 leaves no image")
    assert_error(fit("--batch", "8", "--batch-gpu", "3", code=2), "multiple")
    assert_error(fit("--model", tmp_path / "none.safetensors", code=1), "does not exist")
    assert_error(sgan("encoder", "fit", "--resume", tmp_path, code=1), "not a run folder")
    assert_error(
        sgan("encoder", "fit", "--resume", class_run, code=1), "recipe 'gan'", f"sgan train --resume {class_run}"
    )
    model = load_snapshot(latest_snapshot(class_run))
    save_snapshot(tmp_path / "g.safetensors", model.G, None, model.info)
    assert_error(fit("--loss", "discriminator", model=tmp_path / "g.safetensors", code=1), "no discriminator")
    assert not (tmp_path / "runs").exists()


def test_lpips_without_weights(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    result = fit("--loss", "lpips", code=1)
    assert_error(result, "--loss discriminator")
    assert not (tmp_path / "runs").exists()


def test_an_error_while_starting_leaves_no_folder(fit, tmp_path, monkeypatch):
    def fail(*arguments):
        raise SganError("No.")

    monkeypatch.setattr("stylegan_cli.training.recipes.encoder_run.EncoderRecipe", fail)
    assert_error(fit(code=1), "No.")
    assert names(tmp_path / "runs") == []
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").write_text("x")
    assert_error(fit(code=1), "Cannot create a run folder")


def test_two_ranks(fit, tmp_path):
    folder = Path(fit("--gpus", "2", "-q").stdout.strip())
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).kimg == 0.032
    assert "2 ranks" not in (folder / "log.txt").read_text()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted(sgan, class_run, tmp_path):
    """Ctrl-C saves everything and prints how to continue."""
    command = [sys.executable, "-m", "stylegan_cli", "encoder", "fit", "--model", str(class_run)]
    command += ["--runs", str(tmp_path), "--kimg", "100", "--batch", "8"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("[0-9]*/state-000000-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    (folder,) = tmp_path.iterdir()
    assert process.returncode == 0 and stdout == f"{folder}\n", stderr
    assert "Stopping after this step" in stderr and f"sgan encoder fit --resume {folder}" in stderr
    kimg = ENCODER_FILE.read_info(latest_snapshot(folder)).kimg
    assert 0 < kimg < 100
    assert "stopped" in sgan("runs", "--runs", tmp_path).stdout


def test_a_checkpoint_of_another_program(sgan, class_run, rgb_set, tmp_path, monkeypatch):
    """It does not record a dataset. Its encoder is that of the model that it was made from."""
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    checkpoint, runs = tmp_path / "network.pkl", tmp_path / "runs"
    sgan("convert", class_run, checkpoint, "--for", "ada", "-q")
    line = ["encoder", "fit", "--model", checkpoint, "--runs", runs, *SHORT, "-q"]
    assert_error(sgan(*line, code=1), "does not record which dataset", "--data")
    folder = Path(sgan(*line, "--data", rgb_set).stdout.strip())
    for model in (checkpoint, class_run):
        result = sgan("encode", rgb_set, "--model", model, "--runs", runs, "--outdir", tmp_path / "out")
        assert f"Encoder: {latest_snapshot(folder)} (held-out" in result.stderr
    shutil.rmtree(tmp_path / "cache")
    resumed = ["encoder", "fit", "--resume", folder, "-q"]
    sgan(*resumed, "--kimg", "0.04")  # converted again
    shutil.rmtree(tmp_path / "cache")
    checkpoint.rename(moved := tmp_path / "moved.pkl")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert_error(sgan(*resumed, "--kimg", "0.048", code=1), f"{checkpoint}, does not exist", "--model FILE")
    other = sgan(*resumed, "--kimg", "0.048", "--model", MODEL, code=1)
    assert_error(other, "has changed since this run was started, or is another one", "--model FILE")
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}
    sgan(*resumed, "--kimg", "0.048", "--model", moved)
    assert ENCODER_FILE.read_info(latest_snapshot(folder)).kimg == 0.048
    shutil.rmtree(tmp_path / "cache")
    sgan(*resumed, "--kimg", "0.056")  # converted from the new place
