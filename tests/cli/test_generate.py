"""`sgan generate` end to end: files, metadata, reproducibility, errors."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stylegan_cli
from stylegan_cli.cli.call import no_garbage
from stylegan_cli.data.images import read_metadata
from stylegan_cli.ops import products
from stylegan_cli.snapshot import load_snapshot


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def assert_error(result, *words):
    """A sentence and at most a hint, without a traceback, that contain all words."""
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr and "--debug" not in result.stderr and len(lines) <= 5
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.fixture
def generate(sgan, tiny_run, tmp_path):
    """Generate with the tiny run: generate('--seeds', '1') -> the folder of the images."""

    def run(*args, into="out", model=tiny_run):
        folder = tmp_path / into
        sgan("generate", "--model", model, "--outdir", folder, "-q", *args)
        return folder

    return run


def test_one_file_per_seed(generate, sgan, tiny_run, tmp_path):
    out = generate("--seeds", "0,5,10-12")
    assert names(out) == ["seed0000.png", "seed0005.png", "seed0010.png", "seed0011.png", "seed0012.png"]
    images = [pixels(out / name) for name in names(out)]
    assert all(p.shape == (24, 48, 4) for p in images)
    assert len({p.tobytes() for p in images}) == 5
    result = sgan("generate", "--model", tiny_run, "--outdir", tmp_path / "b", "--seeds", "1")
    assert result.stdout == f"{tmp_path / 'b'}\n"
    assert f"Model: {tiny_run / 'snapshot-000000.032.safetensors'}" in result.stderr


def test_metadata(generate, tiny_run):
    out = generate("--seeds", "7", "--trunc", "0.7", "--trunc-cutoff", "3", "--noise-mode", "random")
    record = read_metadata(out / "seed0007.png")
    model = load_snapshot(tiny_run / "snapshot-000000.032.safetensors")
    assert record["seed"] == "7" and record["trunc"] == "0.7" and record["trunc_cutoff"] == "3"
    assert record["noise_mode"] == "random" and record["model"] == model.fingerprint
    assert record["Software"] == f"stylegan_cli {stylegan_cli.__version__}"
    assert record["command"].startswith("sgan ")


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_other_formats(generate, format):
    out = generate("--seeds", "7", "--grid", "--format", format)
    assert names(out) == [f"grid.{format}", f"seed0007.{format}"]
    assert read_metadata(out / f"seed0007.{format}")["seed"] == "7"


def test_grid_contains_the_images(generate):
    out = generate("--seeds", "3-8", "--grid")
    sheet, cells = pixels(out / "grid.png"), [pixels(out / f"seed{s:04d}.png") for s in range(3, 9)]
    assert sheet.shape[0] % 24 == sheet.shape[1] % 48 == 0
    columns = sheet.shape[1] // 48
    for i, cell in enumerate(cells):
        y, x = i // columns * 24, i % columns * 48
        assert np.array_equal(sheet[y : y + 24, x : x + 48], cell)


def test_json(sgan, tiny_run, tmp_path):
    result = sgan("generate", "--model", tiny_run, "--outdir", tmp_path, "--seeds", "1-2", "--grid", "--json", "-q")
    answer = json.loads(result.stdout)
    assert answer["files"] == [str(tmp_path / name) for name in ("seed0001.png", "seed0002.png", "grid.png")]
    assert answer["model"].endswith("snapshot-000000.032.safetensors")
    assert result.stderr == ""


@pytest.mark.parametrize("noise", ["const", "random"])
def test_batch_size_does_not_change_images(generate, noise):
    options = ["--noise-mode", noise, "--trunc", "0.8"]
    a = generate("--seeds", "0-6", *options, "--batch", "7")
    b = generate("--seeds", "6,3,1", *options, "--batch", "2", into="b")
    c = generate("--seeds", "3", *options, into="c")
    for seed in (6, 3, 1):
        assert np.abs(pixels(a / f"seed{seed:04d}.png") - pixels(b / f"seed{seed:04d}.png")).max() <= 1
    assert np.abs(pixels(a / "seed0003.png") - pixels(c / "seed0003.png")).max() <= 1


def test_same_seeds_give_the_same_pixels(generate):
    a, b = generate("--seeds", "0-3"), generate("--seeds", "0-3", into="b")
    assert names(a) == names(b) and all(np.array_equal(pixels(a / name), pixels(b / name)) for name in names(a))


def test_truncation(generate):
    a, b = generate("--seeds", "1-2", "--trunc", "0"), generate("--seeds", "1-2", into="b")
    assert np.array_equal(pixels(a / "seed0001.png"), pixels(a / "seed0002.png"))
    assert not np.array_equal(pixels(b / "seed0001.png"), pixels(b / "seed0002.png"))


@pytest.mark.parametrize("faster", [False, True])
def test_metadata_records_the_precision_in_use(generate, monkeypatch, faster):
    """An image is made again with it where --precision auto chooses another."""
    monkeypatch.setattr(products, "MIN_PIXELS", 0)
    monkeypatch.setattr(products, "MIN_CHANNELS", 1)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: faster, raising=False)
    made = generate("--seeds", "7") / "seed0007.png"
    precision = read_metadata(made)["precision"]
    assert precision == ("bf32" if faster else "fp32")
    again = {p: pixels(generate("--seeds", "7", "--precision", p, into=p) / made.name) for p in ("fp32", "bf32")}
    assert np.array_equal(pixels(made), again[precision]) and not np.array_equal(again["fp32"], again["bf32"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_similar_images(generate, precision):
    a, b = generate("--seeds", "1-3"), generate("--seeds", "1-3", "--precision", precision, into="b")
    for name in names(a):
        assert np.abs(pixels(a / name) - pixels(b / name)).mean() < 2


@pytest.mark.parametrize("noise", ["const", "none", "random"])
def test_saved_latents_give_the_same_images(generate, noise):
    a = generate("--seeds", "4,9", "--trunc", "0.6", "--save-w", "--noise-mode", noise)
    assert names(a) == ["seed0004.png", "seed0009.png", "w.npz"]
    b = generate("--from-w", a / "w.npz", "--noise-mode", noise, into="b")
    assert len(names(b)) == 2
    for from_w, from_seed in zip(names(b), ("seed0004.png", "seed0009.png")):
        assert np.array_equal(pixels(b / from_w), pixels(a / from_seed))
        assert read_metadata(b / from_w)["from_w"] == str(a / "w.npz")


# ----------------------------------------------------------------------------------------- which model


def test_newest_run_is_the_default(sgan, tiny_run, tmp_path):
    result = sgan("generate", "--runs", tiny_run.parent, "--outdir", tmp_path, "--seeds", "1")
    assert "snapshot-000000.032.safetensors, the newest in" in result.stderr


def test_older_snapshot(generate, tiny_run):
    a = generate("--seeds", "1", model=tiny_run / "snapshot-000000.016.safetensors")
    b = generate("--seeds", "1", into="b")
    assert read_metadata(a / "seed0001.png")["model"] != read_metadata(b / "seed0001.png")["model"]


@pytest.mark.parametrize("command", ["generate", "mix"])
@pytest.mark.parametrize("kind", ["cut", "pickle", "missing", "empty folder", "other"])
def test_bad_model_files(sgan, tiny_run, tmp_path, command, kind):
    model = tmp_path / "model.safetensors"
    whole = (tiny_run / "snapshot-000000.032.safetensors").read_bytes()
    if kind == "cut":
        model.write_bytes(whole[: len(whole) // 2])
    if kind == "pickle":
        model.write_bytes(b"\x80\x04}q\x00.")
    if kind == "empty folder":
        model.mkdir()
    if kind == "other":
        import safetensors.torch
        import torch

        safetensors.torch.save_file({"w": torch.zeros(1)}, model)
    result = sgan(command, "--model", model, "--outdir", tmp_path / "out", "-q", code=1)
    assert_error(result, str(model))
    assert result.stdout == "" and not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------- classes


def test_classes(generate, class_run):
    a = generate("--seeds", "1-3", "--class", "2", model=class_run)
    b = generate("--seeds", "1-3", "--class", "0", into="b", model=class_run)
    c = generate("--seeds", "1-12", into="c", model=class_run)
    record = read_metadata(a / "seed0001.png")
    assert (record["class"], record["class_name"]) == ("2", "tall")
    assert not np.array_equal(pixels(a / "seed0001.png"), pixels(b / "seed0001.png"))
    d = generate("--seeds", "2", into="d", model=class_run)
    assert np.abs(pixels(c / "seed0002.png") - pixels(d / "seed0002.png")).max() <= 1  # its class comes from the seed


@pytest.mark.parametrize("command", ["generate", "mix"])
def test_class_of_unconditional_model(sgan, tiny_run, tmp_path, command):
    out = tmp_path / "out"
    assert_error(sgan(command, "--model", tiny_run, "--class", "0", "--outdir", out, "-q", code=1), "no classes")
    assert not out.exists()


@pytest.mark.parametrize("index", ["3", "-1"])
def test_class_out_of_range(sgan, class_run, tmp_path, index):
    result = sgan("generate", "--model", class_run, "--class", index, "--outdir", tmp_path / "out", "-q", code=1)
    assert_error(result, f"no class {index}", "0 to 2")


def test_class_is_refused_with_latents(sgan, generate, tiny_run, tmp_path):
    """It would have no effect, but be in the metadata."""
    a = generate("--seeds", "1", "--save-w")
    out = tmp_path / "b"
    line = ["generate", "--model", tiny_run, "--from-w", a / "w.npz", "--class", "1", "--outdir", out, "-q"]
    from click.testing import CliRunner

    from stylegan_cli.cli import main

    assert CliRunner().invoke(main, [str(x) for x in line]).exit_code in (1, 2)


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("seeds", ["5-1", "x", "", "-3", "1,,2", "0-99999999999", str(2**32), "1.5"])
def test_bad_seeds(sgan, tiny_run, tmp_path, seeds):
    out = tmp_path / "out"
    assert_error(sgan("generate", "--model", tiny_run, f"--seeds={seeds}", "--outdir", out, code=2), "--seeds")
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [["--trunc", "x"], ["--trunc-cutoff", "-1"], ["--noise-mode", "rand"], ["--format", "gif"], ["--batch", "0"]],
    ids=" ".join,
)
def test_misused_options(sgan, options):
    assert_error(sgan("generate", *options, code=2), options[0])


def test_latents_of_another_model(sgan, tiny_run, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.zeros((1, 3, 512)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:99])
    for name in ("w.npz", "cut.npz", "none.npz"):
        line = ["--from-w", tmp_path / name, "--outdir", tmp_path / "out", "-q"]
        assert_error(sgan("generate", "--model", tiny_run, *line, code=1), name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "mix"])
def test_unwritable_folder(sgan, tiny_run, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    result = sgan(command, "--model", tiny_run, "--outdir", tmp_path / "file" / "out", "-q", code=1)
    assert_error(result, "Cannot write", "file")
    assert result.stdout == "" and names(tmp_path) == ["file"]


def test_garbage_is_collected_after_the_start(sgan, tiny_run, tmp_path):
    sgan("generate", "--model", tiny_run, "--seeds", "1", "--outdir", tmp_path / "out")
    assert gc.isenabled()
    with pytest.raises(ImportError), no_garbage():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_full_disk(sgan, tiny_run, tmp_path, monkeypatch):
    write, calls = Path.write_bytes, []

    def full(path, content):
        calls.append(path)
        write(path, content)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    assert_error(
        sgan("generate", "--model", tiny_run, "--seeds", "0-9", "--outdir", out, "-q", code=1), "No space left"
    )
    assert names(out) == ["seed0000.png", "seed0001.png"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted(tiny_run, tmp_path):
    out = tmp_path / "out"
    line = [sys.executable, "-m", "stylegan_cli", "generate", "--model", str(tiny_run), "--seeds", "0-9999"]
    process = subprocess.Popen([*line, "--outdir", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out.is_dir() and len(names(out)) > 5) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "Interrupted." in stderr and "Traceback" not in stderr
    assert 0 < len(names(out)) < 10000
    assert all(name.startswith("seed") and name.endswith(".png") for name in names(out))
    last = max(out.iterdir(), key=lambda p: p.name)
    assert pixels(last).shape == (24, 48, 4)
    shutil.rmtree(out)
