"""`sgan train` end to end: files, resuming, bad input, interrupts."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.snapshot import SnapshotInfo, load_snapshot, read_info, save_snapshot
from stylegan_cli.training.config import read_config

SMALL = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2"]


def assert_error(result, *words):
    """A sentence and at most a hint, without a traceback, that contain all words."""
    assert "Traceback" not in result.stderr and "--debug" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 5
    assert result.stderr.startswith(("Error: ", "Usage: ")), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------------------------ files


def test_run_folder(tiny_run):
    assert tiny_run.name == "00000-rgba-auto"
    shown = [n for n in names(tiny_run) if not n.startswith(("events.", ".", "state-"))]
    assert shown == [
        "config.json",
        "fakes-000000.016.png",
        "fakes-000000.032.png",
        "fakes-000000.png",
        "log.txt",
        "reals.png",
        "snapshot-000000.016.safetensors",
        "snapshot-000000.032.safetensors",
        "stats.jsonl",
    ]
    assert [n[:16] for n in names(tiny_run) if n.startswith("state-")] == ["state-000000.016", "state-000000.032"]


def test_settings(tiny_run, rgba_set):
    config = read_config(json.loads((tiny_run / "config.json").read_text()))
    assert (config.cfg, config.batch, config.kimg, config.snap) == ("auto", 8, 0.032, 0.016)
    assert (config.data.path, config.data.num, config.data.channels) == (str(rgba_set), 40, 4)
    assert (config.generator.height, config.generator.width, config.generator.channels) == (24, 48, 4)
    assert (config.generator.channel_base, config.discriminator.mapping_layers) == (64, 8)
    assert config.generator.mapping_layers == 2
    assert config.gamma == pytest.approx(0.0002 * 24 * 48 / 8)


def test_statistics(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "stats.jsonl").read_text().splitlines()]
    assert [line["kimg"] for line in lines if "diversity" in line] == [0, 0.016, 0.032]
    lines = [line for line in lines if "diversity" not in line]
    assert [line["kimg"] for line in lines] == [0.008, 0.016, 0.024, 0.032]
    assert all(line["sec_per_kimg"] > 0 and line["loss/D"] > 0 and line["loss/G"] > 0 for line in lines)
    assert "r1/penalty" in lines[0] and "path/length" in lines[0]
    log = (tiny_run / "log.txt").read_text().splitlines()
    assert len(log) == 4 and all("loss G" in line for line in log)


def test_images(tiny_run):
    reals, fakes = (Image.open(tiny_run / name) for name in ("reals.png", "fakes-000000.032.png"))
    assert reals.size == fakes.size == (8 * 48, 8 * 24)
    assert reals.mode == fakes.mode == "RGBA"
    assert Image.open(tiny_run / "fakes-000000.png").tobytes() != fakes.tobytes()


def test_snapshot(tiny_run):
    snapshot = load_snapshot(tiny_run / "snapshot-000000.032.safetensors")
    info = snapshot.info
    assert info.kimg == 0.032 and info.data.num == 40 and snapshot.D is not None
    assert "auto" in info.origin
    with torch.no_grad():
        assert snapshot.G(torch.randn(1, 512)).shape == (1, 4, 24, 48)
    assert snapshot.G.mapping.w_avg.abs().sum() > 0


def test_conditional_run(class_run):
    info = read_info(class_run / "snapshot-000000.032.safetensors")
    assert info.data.label == "hat" and info.data.classes == ("flat", "none", "tall")
    assert info.generator.c_dim == info.discriminator.c_dim == 3


def test_result_goes_to_stdout_and_messages_to_stderr(sgan, rgb_set, tmp_path):
    result = sgan("train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "0.016", "--cond")
    folder = tmp_path / "00000-rgb-auto"
    assert result.stdout == f"{folder}\n"
    for words in (
        "images of 16x16 (height x width), 2 classes",
        f"{folder / 'fakes-000000.016.png'}",
        "sgan generate",
        "--resume",
    ):
        assert words in result.stderr
    assert f"--runs {tmp_path}" in result.stderr


def test_same_options_give_the_same_weights(sgan, rgb_set, tmp_path):
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "0.016", "-q"]
    a, b, c = (Path(sgan(*line, "--seed", seed).stdout.strip()) for seed in (3, 3, 4))
    assert (a.name, b.name) == ("00000-rgb-auto", "00001-rgb-auto")
    prints = [load_snapshot(run / "snapshot-000000.016.safetensors").fingerprint for run in (a, b, c)]
    assert prints[0] == prints[1] != prints[2]


def test_dry_run(sgan, rgba_set, tmp_path):
    result = sgan("train", "--data", rgba_set, "--runs", tmp_path / "runs", *SMALL, "--mirror", "--dry-run")
    settings, end = json.JSONDecoder().raw_decode(result.stdout)
    assert "recipe" not in settings and read_config(settings).data.mirror is True
    tables = result.stdout[end:]
    for words in ("Generator", "Discriminator", "synthesis.b32.conv0", "4 x 24 x 48", "b4.out"):
        assert words in tables
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("capability", "size", "options", "expected"),
    [
        (None, "64", [], "fp32"),
        ("_is_amx_tile_supported", "64", [], "bf16"),
        ("_is_avx512_bf16_supported", "64", ["--precision", "auto"], "bf16"),
        ("_is_avx512_bf16_supported", "32", [], "bf16"),
        ("_is_avx512_bf16_supported", "16", [], "fp32"),
        ("_is_avx512_bf16_supported", "64", ["--precision", "fp32"], "fp32"),
        (None, "64", ["--precision", "bf16"], "bf16"),
    ],
)
def test_precision_is_that_of_the_processor(sgan, monkeypatch, capability, size, options, expected):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == capability, raising=False)
    result = sgan("train", "--cfg", "auto", "--size", size, "--device", "cpu", *SMALL, *options, "--dry-run")
    config = read_config(json.JSONDecoder().raw_decode(result.stdout)[0])
    assert config.precision == expected
    assert config.generator.conv_clamp is None  # the networks do not depend on the processor


def test_smaller_size_and_other_options(sgan, rgba_set):
    line = ["--size", "12x24", "--gamma", "3", "--lr", "0.001", "--pl-weight", "0", "--mixing-prob", "0.5"]
    more = ["--ema-kimg", "2", "--batch-gpu", "4", "--mbstd-group", "2", "--seed", "5", "--cfg", "paper256"]
    result = sgan("train", "--data", rgba_set, *SMALL, *line, *more, "--dry-run")
    config = read_config(json.JSONDecoder().raw_decode(result.stdout)[0])
    assert (config.generator.height, config.generator.width, config.data.filter) == (12, 24, "box")
    assert (config.gamma, config.lr, config.pl_weight, config.mixing_prob) == (3, 0.001, 0, 0.5)
    assert (config.ema_kimg, config.batch_gpu, config.discriminator.mbstd_group, config.seed) == (2, 4, 2, 5)


def test_other_objectives(sgan, rgb_set, tmp_path):
    """They train, resume, and log their own penalties."""
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "0.016", "--snap", "0.008"]
    wgan = ["--loss", "wgan", "--gp", "5", "--drift", "0.01", "--penalty-interval", "2"]
    other = ["--loss", "lsgan", "--r2", "1", "--cond", "--aux-classifier"]
    for options, words, logged in (
        (wgan, "wgan, gradient penalty 5", {"gp/penalty"}),
        (other, "lsgan, gamma 0.0064, R2 1, classes", {"r1/penalty", "r2/penalty", "loss/D aux", "loss/G aux"}),
    ):
        result = sgan(*line, *options)
        assert words in result.stderr
        folder = Path(result.stdout.strip())
        sgan("train", "--resume", folder, "--kimg", "0.024", "-q")
        stats = [json.loads(text) for text in (folder / "stats.jsonl").read_text().splitlines()]
        assert logged <= set().union(*stats) and stats[-1]["kimg"] == 0.024
    config = read_config(json.loads((folder / "config.json").read_text()))
    assert (config.loss, config.r2_gamma, config.discriminator.labels) == ("lsgan", 1, "classifier")
    snapshot = next(folder.glob("snapshot-000000.024*"))
    # Its discriminator predicts classes, which images without labels do not have.
    line = ["train", "--data", rgb_set, "--resume", snapshot, "--batch", "8", "--dry-run"]
    for options, labels in (
        ([], "projection"),
        (["--cond"], "classifier"),
        (["--cond", "--aux-classifier"], "classifier"),
    ):
        config = read_config(json.JSONDecoder().raw_decode(sgan(*line, *options).stdout)[0])
        assert config.discriminator.labels == labels


@pytest.mark.parametrize(("kernel", "radial", "cfg"), [(3, False, "stylegan3-t"), (1, True, "stylegan3-r")])
def test_fine_tuning_takes_the_preset_of_the_model(sgan, rgb_set, tmp_path, kernel, radial, cfg):
    config = StyleGAN3Config(16, 16, channel_base=64, channel_max=8, z_dim=8, w_dim=8, kernel=kernel, radial=radial)
    save_snapshot(tmp_path / "g.safetensors", build_generator(config), None, SnapshotInfo(config))
    line = ["train", "--data", rgb_set, "--resume", tmp_path / "g.safetensors", "--dry-run"]
    config = read_config(json.JSONDecoder().raw_decode(sgan(*line).stdout)[0])
    assert (config.cfg, config.pl_weight, config.mixing_prob, config.d_lr) == (cfg, 0, 0, 0.002)
    assert config.gamma == config.data.height * config.data.width * 2**-10 / config.batch


# ----------------------------------------------------------------------------------------- bad input


def test_size_that_cannot_be_halved(sgan, make_set, tmp_path):
    data = make_set(tmp_path / "odd.zip", (31, 47, 3), 4)
    result = sgan("train", "--data", data, "--runs", tmp_path / "runs", *SMALL, code=1)
    assert_error(result, "31x47", "nearest sizes", "32x48")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--kimg", "0"], 2, "--kimg"),
        (["--kimg", "many"], 2, "--kimg"),
        (["--cfg", "papper256"], 2, "paper256"),
        (["--batch", "0"], 2, "--batch"),
        (["--size", "x"], 2, "--size"),
        (["--size", "32"], 1, "cannot be enlarged"),
        (["--size", "8x16"], 1, "aspect ratio"),
        (["--cond", "hatt"], 1, "Did you mean hat?"),
        (["--batch", "9", "--batch-gpu", "2"], 2, "is not a multiple of"),
        (["--gpus", "3"], 2, "--batch 8 is not a multiple of --gpus 3.\nUse a multiple of 3 for --batch."),
        (["--gamma", "nan"], 2, "Invalid value for '--gamma': 'nan' is not a valid number."),
        (["--lr", "inf"], 2, "Invalid value for '--lr': 'inf' is not a valid number."),
        (["--r2", "nan"], 2, "Invalid value for '--r2'"),
        (["--aug", "fixed", "--p", "nan"], 2, "Invalid value for '--p': 'nan' is not a valid number."),
        (["--aug", "ada", "--target", "5"], 2, "--target is 5.0.\nUse a number from -1 to 1."),
        (["--map-depth", "99"], 2, "--map-depth is 99.\nUse a number from 1 to 64."),
        (["--aug", "fixed"], 2, "--p"),
        (["--aug", "noaug", "--augpipe", "bg"], 2, "no effect"),
        (["--aug", "diffaug", "--p", "0.5"], 2, "no effect"),
        (["--loss", "wasserstein"], 2, "wgan"),
        (["--loss", "wgan", "--gamma", "1"], 2, "--gamma has no effect with --loss wgan"),
        (["--loss", "wgan", "--r2", "1"], 2, "--r2 has no effect"),
        (["--loss", "wgan", "--aug", "ada"], 2, "--aug fixed"),
        (["--loss", "wgan", "--target", "0.5"], 2, "--target has no effect"),
        (["--loss", "hinge", "--gp", "1"], 2, "--gp has no effect with --loss hinge"),
        (["--drift", "1"], 2, "--drift has no effect with --loss logistic"),
        (["--gp", "-1"], 2, "--gp"),
        (["--aux-classifier"], 2, "Add --cond"),
        (["--resume", "x/state-000000-0123456789abcdef.safetensors"], 1, "sgan train --resume x"),
        (["--device", "cuda:7"], 1, "cuda:7"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_options(sgan, rgb_set, tmp_path, options, code, words):
    assert_error(sgan("train", "--data", rgb_set, "--runs", tmp_path / "runs", *SMALL, *options, code=code), words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("options", [["--snap", "0.0001"], ["--kimg", "0.0001"]], ids=" ".join)
def test_less_than_one_image_counts_as_one_step(sgan, rgb_set, tmp_path, options):
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "-q", "--kimg", "0.016", *options]
    folder = Path(sgan(*line).stdout.strip())
    assert list(folder.glob("snapshot-*.safetensors"))


def test_too_few_channels(sgan, make_set, tmp_path):
    """--cbase 16 leaves no channel at level 32."""
    data = make_set(tmp_path / "a.zip", (32, 32, 3), 8)
    result = sgan("train", "--data", data, "--runs", tmp_path / "runs", "--cbase", "16", "--kimg", "0.008", code=2)
    assert_error(result, "channel")
    assert not (tmp_path / "runs").exists()


def test_missing_dataset(sgan, tmp_path):
    assert_error(sgan("train", "--data", tmp_path / "faces.zip", code=1), "faces.zip", "does not exist")


def test_unwritable_folder(sgan, rgb_set, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert_error(sgan("train", "--data", rgb_set, *SMALL, "--runs", tmp_path / "file" / "runs", "-q", code=1), "file")


# ------------------------------------------------------------------------------------------- interrupts


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("ranks", [1, 2])
def test_interrupted_run_saves_its_state(rgb_set, tmp_path, ranks):
    """A terminal sends Ctrl-C to all its processes."""
    line = [sys.executable, "-m", "stylegan_cli", "train", "--data", str(rgb_set), "--runs", str(tmp_path)]
    line += [*SMALL, "--kimg", "1000", "--snap", "1000", "--pl-weight", "0", "--gpus", str(ranks)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, **pipes, start_new_session=True)
    folder = tmp_path / "00000-rgb-auto"
    try:
        deadline = time.monotonic() + 60
        while not (folder / "fakes-000000.png").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, stderr
    assert "Stopping after this step" in stderr and "Traceback" not in stderr
    assert stdout == f"{folder}\n"
    (snapshot,) = folder.glob("snapshot-*.safetensors")
    info = load_snapshot(snapshot).info
    assert 0 < info.kimg < 1000 and f"sgan train --resume {folder}" in stderr
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


# --------------------------------------------------------------------------------------------- failures


def test_diverging_run_is_reported(sgan, rgb_set, tmp_path):
    """At this learning rate the first step ruins the weights; the state before it is kept."""
    line = ["--kimg", "1", "--snap", "1", "--lr", "1e30", "--aug", "noaug", "--pl-weight", "0"]
    result = sgan("train", "--data", rgb_set, "--runs", tmp_path, *SMALL, *line, "-q", code=1)
    assert_error(result, "diverged", "--lr")
    (folder,) = tmp_path.iterdir()
    assert [n[:12] for n in names(folder) if n.startswith("state-")] == ["state-000000"]
    assert "diverged" in (folder / "failure.txt").read_text()


def test_impossible_settings_leave_no_folder(sgan, rgb_set, tmp_path):
    line = ["--runs", tmp_path / "runs", "--cfg", "demo-stylegan2", "--cmax", "30"]
    assert_error(sgan("train", *line, code=2), "30 channels", "--cmax")
    assert not (tmp_path / "runs").exists()


def test_the_modern_baseline_trains_resumes_and_generates(sgan, rgb_set, tmp_path):
    small = ("--size", "16", "--cbase", "64", "--cmax", "8", "--batch", "4", "--snap", "0.008", "-q", "--device", "cpu")
    sgan("train", "--data", rgb_set, "--cfg", "r3gan", "--kimg", "0.008", *small, "--runs", tmp_path)
    (folder,) = tmp_path.glob("00000-*")
    assert json.loads((folder / "config.json").read_text())["schedule"]["aug_p"] == 0.55
    sgan("train", "--resume", folder, "--kimg", "0.016", "-q", "--device", "cpu")
    sgan("generate", "--model", folder, "--seeds", "0-3", "--outdir", tmp_path / "out", "--device", "cpu")
    assert "R3GAN" in sgan("model", "info", folder).stdout
    result = sgan("train", "--data", rgb_set, "--cfg", "r3gan", "--map-depth", "3", code=2)
    assert "--map-depth has no effect on R3GAN models" in result.stderr
    result = sgan("train", "--data", rgb_set, "--loss", "relativistic", "--gp", "1", code=2)
    assert "--gp has no effect with --loss relativistic" in result.stderr
    result = sgan("mix", "--model", folder, "--rows", "1", "--cols", "2", code=1)
    assert "no styles to choose or to mix" in result.stderr
    result = sgan("train", "--data", rgb_set, "--cfg", "r3gan", "--mixing-prob", "0.5", code=2)
    assert "--mixing-prob has no effect on R3GAN models" in result.stderr
    result = sgan("train", "--resume", next(folder.glob("snapshot-*")), "--dry-run", "--device", "cpu")
    assert json.loads(result.stdout.partition("\n\n")[0])["cfg"] == "r3gan"
    line = ("train", "--resume", next(folder.glob("snapshot-*")), "--cfg", "dcgan", "--dry-run")
    assert (
        "has the networks of R3GAN, but --cfg dcgan trains those of DCGAN.\nRemove --cfg." in sgan(*line, code=2).stderr
    )


def test_an_encoder_beside_both_networks(sgan, rgb_set, tmp_path):
    small = ("--size", "16", "--cbase", "64", "--cmax", "8", "--batch", "4", "--kimg", "0.008", "-q", "--device", "cpu")
    for recipe in ("bigan", "vaegan"):
        result = sgan("train", "--data", rgb_set, "--recipe", recipe, *small, "--runs", tmp_path)
        assert "sgan encode IMAGE" in result.stderr
        folder = sorted(tmp_path.glob("0000*"))[-1]
        line = ("encode", folder / "reals.png", "--model", folder, "--runs", tmp_path / "none", "--outdir")
        found = [sgan(*line, tmp_path / recipe, *options) for options in ((), ("--encoder", folder))]
        assert all(f"Encoder: {folder / 'encoder.safetensors'} (" in result.stderr for result in found)
        sgan("train", "--resume", folder, "--kimg", "0.016", "-q", "--device", "cpu")
    pair = tmp_path / "00000-rgb-auto"
    assert "judges pairs of an image and its z" in sgan("model", "info", pair).stdout
    assert "pairs" not in sgan("model", "info", folder).stdout
    line = ("convert", pair, tmp_path / "a.pkl", "--for", "ada")
    assert "judges pairs of an image and its z.\nRemove it with --drop-discriminator." in sgan(*line, code=1).stderr
    assert not (tmp_path / "a.pkl").exists()
    sgan(*line, "--drop-discriminator")
    line = ("translate", "fit", "--task", "superres", "--skips", "--adversarial", "0.1", "--model", pair)
    result = sgan(*line, "--runs", tmp_path / "runs", code=2)
    assert "judges pairs of an image and its z, and --adversarial has none.\n" in result.stderr
    assert not (tmp_path / "runs").exists()
    options = ("--data", rgb_set, "--cond", "hat", "--recipe", "vaegan", "--aux-classifier")
    assert "cannot be combined with --aux-classifier" in sgan("train", *options, code=2).stderr
    (snapshot, *_) = sorted(pair.glob("snapshot-*"))
    result = sgan("train", "--resume", snapshot, "--recipe", "bigan", "--dry-run", "--device", "cpu")
    assert json.loads(result.stdout.partition("\n\n")[0])["discriminator"]["c_dim"] == 512
    result = sgan("train", "--resume", snapshot, "--dry-run", "--device", "cpu")
    assert json.loads(result.stdout.partition("\n\n")[0])["discriminator"]["c_dim"] == 0
