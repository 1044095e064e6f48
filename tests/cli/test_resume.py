"""`sgan train --resume`: the same run, the same run with changed options, a new run from the weights of a model."""

import json
from pathlib import Path

import pytest
import torch

from stylegan_cli.ops import products
from stylegan_cli.snapshot import load_snapshot, read_info
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


def test_resume_continues_in_the_same_folder(sgan, rgb_set, tmp_path):
    line = ["--data", rgb_set, "--runs", tmp_path, *SMALL, "-q"]
    folder = Path(sgan("train", *line, "--kimg", "0.016").stdout.strip())
    result = sgan("train", "--resume", folder, "--kimg", "0.032", "-q")
    assert result.stdout == f"{folder}\n" and names(tmp_path) == [folder.name]
    assert load_snapshot(folder / "snapshot-000000.032.safetensors").info.kimg == 0.032
    stats = [json.loads(line)["kimg"] for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert stats == sorted(stats) and stats[-1] == 0.032
    assert json.loads((folder / "config.json").read_text())["kimg"] == 0.032
    assert_error(sgan("train", "--resume", folder, code=1), "complete at 0.032 kimg", "--kimg")
    assert_error(sgan("train", "--resume", folder, "--kimg", "0.016", code=1), "at 0.032 kimg already", "--kimg")


def test_resume_refuses_other_settings(sgan, tiny_run):
    networks = ["--cbase", "128"], ["--map-depth", "3"], ["--size", "12x24"], ["--aux-classifier"], ["--cond"]
    before = {path: path.read_bytes() for path in tiny_run.iterdir()}
    for options in (*networks, ["--loss", "hinge"], ["--seed", "2"], ["--cfg", "stylegan2"], ["--freezed", "2"]):
        assert_error(
            sgan("train", "--resume", tiny_run, "--kimg", "1", *options, code=2), options[0], "cannot be changed"
        )
    assert before == {path: path.read_bytes() for path in tiny_run.iterdir()}


def test_resume_keeps_the_precision(sgan, rgb_set, monkeypatch, tmp_path):
    """Also where --precision auto would choose another."""
    monkeypatch.setattr(products, "MIN_PIXELS_TRAINING", 0)
    capability = {"_is_amx_tile_supported": True, "_is_avx512_bf16_supported": False}
    for name in capability:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: capability[name], raising=False)
    line = ["--data", rgb_set, "--runs", tmp_path, *SMALL, "--device", "cpu", "-q"]
    folder = Path(sgan("train", *line, "--kimg", "0.008").stdout.strip())
    assert json.loads((folder / "config.json").read_text())["precision"] == "bf16"
    capability["_is_amx_tile_supported"] = False
    for kimg, options in (("0.016", []), ("0.024", ["--precision", "auto"])):
        sgan("train", "--resume", folder, "--kimg", kimg, *options, "-q")
        assert json.loads((folder / "config.json").read_text())["precision"] == "bf16"
    result = sgan("train", "--resume", folder, "--kimg", "1", "--precision", "fp32", code=2)
    assert_error(result, "--precision cannot be changed")


def test_resume_with_changed_settings(sgan, rgb_set, make_set, tmp_path):
    line = ["--data", rgb_set, "--runs", tmp_path, *SMALL, "-q"]
    folder = Path(sgan("train", *line, "--kimg", "0.016").stdout.strip())
    changes = ["--batch", "4", "--gamma", "2", "--lr", "0.001", "--target", "0.5", "--mirror"]
    others = make_set(tmp_path / "others.zip", num=12)
    result = sgan("train", "--resume", folder, "--kimg", "0.024", *changes, "--data", others)
    assert "batch 8 -> 4" in result.stderr and "other images (32 -> 12)" in result.stderr
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["batch"], settings["gamma"], settings["ada_target"]) == (4, 2, 0.5)
    assert settings["data"]["path"] == str(others) and settings["data"]["mirror"] is True
    assert [entry["kimg"] for entry in settings["history"]] == [0.016]
    assert read_info(folder / "snapshot-000000.024.safetensors").data.num == 12
    assert "complete" in sgan("runs", "--runs", tmp_path).stdout


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_refused_resume_does_not_mark_a_complete_run(sgan, rgb_set, make_set, tmp_path, ranks):
    """The images change under the same name, which only opening them shows."""
    data = make_set(tmp_path / "a.zip")
    folder = Path(
        sgan("train", "--data", data, "--runs", tmp_path / "runs", *SMALL, "--kimg", "0.008", "-q").stdout.strip()
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    make_set(data, num=16)
    assert_error(sgan("train", "--resume", folder, "--kimg", "1", "--gpus", ranks, "-q", code=1), "have changed")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "complete" in sgan("runs", "--runs", tmp_path / "runs").stdout


def test_a_run_that_cannot_be_logged_is_as_it_was(sgan, rgb_set, tmp_path):
    line = ["train", "--data", rgb_set, "--runs", tmp_path, *SMALL, "--kimg", "0.008", "-q"]
    folder = Path(sgan(*line).stdout.strip())
    (folder / "log.txt").unlink()
    (folder / "log.txt").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert_error(sgan("train", "--resume", folder, "--kimg", "1", "-q", code=1), "Cannot write", "Is a directory")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "complete" in sgan("runs", "--runs", tmp_path).stdout


def test_too_many_frozen_layers_are_refused_before_there_is_a_run(sgan, rgb_set, tmp_path):
    line = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", "--freezed", "99"]
    assert_error(sgan(*line, "--dry-run", code=2), "--freezed is 99", "Choose --freezed from 0 to")
    assert_error(sgan(*line, code=2), "--freezed is 99")
    assert not (tmp_path / "runs").exists()


def test_a_snapshot_brings_its_dataset(sgan, class_run, rgb_set, make_set, tmp_path):
    """Its images, labels and flips; if they are gone or others, the user has to name a dataset."""
    snapshot = class_run / "snapshot-000000.032.safetensors"
    line = ["train", "--resume", snapshot, "--batch", "8", "--runs", tmp_path / "runs"]
    config = read_config(json.JSONDecoder().raw_decode(sgan(*line, "--dry-run").stdout)[0])
    assert config.data == read_info(snapshot).data and config.cfg == "auto"
    data = make_set(tmp_path / "a.zip")
    new = ["train", "--data", data, "--mirror", "--runs", tmp_path / "runs", *SMALL, "--kimg", "0.008", "-q"]
    (snapshot,) = Path(sgan(*new).stdout.strip()).glob("snapshot-*")
    line[2] = snapshot
    assert '"mirror": true' in sgan(*line, "--dry-run").stdout
    make_set(data, num=16)
    assert_error(sgan(*line, code=1), str(data), "--data")
    data.unlink()
    assert_error(sgan(*line, code=1), str(data), "does not exist", "--data")
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_checkpoint_without_a_dataset_asks_for_one(sgan, class_run, tmp_path):
    checkpoint = tmp_path / "network.pkl"
    sgan("convert", class_run, checkpoint, "--for", "ada")
    assert_error(sgan("train", "--resume", checkpoint, "--runs", tmp_path / "runs", code=1), "Use --data.")
    assert not (tmp_path / "runs").exists()


def test_resume_refuses_changed_images(sgan, make_set, tmp_path):
    data = make_set(tmp_path / "a.zip")
    folder = Path(sgan("train", "--data", data, "--runs", tmp_path / "runs", *SMALL, "--kimg", "0.008").stdout.strip())
    make_set(data, num=16)
    assert_error(
        sgan("train", "--resume", folder, "--kimg", "0.016", "-q", code=1), "have changed since this run was started"
    )
    sgan("train", "--resume", folder, "--kimg", "0.016", "--data", data, "-q")  # with them, if they are named


def test_resume_refuses_other_folders(sgan, tiny_run, tmp_path):
    assert_error(sgan("train", "--resume", tmp_path, code=1), "not a run folder")
    (tmp_path / "config.json").write_text((tiny_run / "config.json").read_text())
    assert_error(sgan("train", "--resume", tmp_path, code=1), "no training state")
    (tmp_path / "config.json").write_text("{")
    assert_error(sgan("train", "--resume", tmp_path, code=1), "config.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert_error(sgan("train", "--resume", tmp_path, code=1), "Cannot read", "config.json")
    assert_error(sgan("train", "--resume", "x" * 5000, code=1), "File name too long")


def test_new_run_from_the_weights_of_a_model(sgan, tiny_run, rgba_set, tmp_path):
    start = tiny_run / "snapshot-000000.032.safetensors"
    line = ["train", "--data", rgba_set, "--runs", tmp_path, "--resume", start, "--batch", "4", "-q"]
    folder = Path(sgan(*line, "--kimg", "0.004", "--lr", "1e-9", "--pl-weight", "0").stdout.strip())
    config = read_config(json.loads((folder / "config.json").read_text()))
    assert config.resume == str(start) and config.batch == 4
    assert config.generator == read_info(start).generator
    before, after = load_snapshot(start), load_snapshot(folder / "snapshot-000000.004.safetensors")
    for a, b in ((before.G, after.G), (before.D, after.D)):
        for (name, p), q in zip(a.named_parameters(), b.parameters()):
            assert torch.allclose(p, q, atol=1e-5), name
    assert not (folder / "snapshot-000000.036.safetensors").exists()  # kimg are counted from zero


def test_weights_that_do_not_fit_the_images_are_initialized(sgan, tiny_run, rgb_set, tmp_path):
    """With another size and other channels, the weights that fit are copied, and the others are listed."""
    start = tiny_run / "snapshot-000000.032.safetensors"
    line = ["train", "--data", rgb_set, "--resume", start, "--batch", "8", "--kimg", "0.008", "--runs", tmp_path]
    result = sgan(*line, "--freezed", "2")
    assert "tensors are newly initialized" in result.stderr and "G.synthesis.b4.const" in result.stderr
    folder = Path(result.stdout.strip())
    config = read_config(json.loads((folder / "config.json").read_text()))
    assert (config.generator.height, config.generator.channels, config.generator.channel_base) == (16, 3, 64)
    assert (config.freezed, config.ema_rampup, config.ada_kimg) == (2, None, 100)
    snapshot = load_snapshot(folder / "snapshot-000000.008.safetensors")
    assert snapshot.G.num_ws == 6
    assert_error(sgan(*line, "--freezed", "99", "-q", code=2), "--freezed", "10 layers")


@pytest.mark.parametrize("kind", ["missing", "pickle", "cut"])
def test_bad_weight_files(sgan, tiny_run, rgba_set, tmp_path, kind):
    file = tmp_path / "network.pkl"
    if kind == "pickle":
        file.write_bytes(b"\x80\x04}q\x00.")
    if kind == "cut":
        file.write_bytes((tiny_run / "snapshot-000000.032.safetensors").read_bytes()[:5000])
    assert_error(sgan("train", "--data", rgba_set, "--resume", file, "--runs", tmp_path / "runs", code=1), str(file))
    assert not (tmp_path / "runs").exists()
