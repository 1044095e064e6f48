"""`sgan encode` and `sgan project --init encoder` end to end: files, use in other commands, errors."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

import stylegan_cli
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import read_metadata
from stylegan_cli.runs import latest_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def assert_error(result, *words):
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) <= 5
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.fixture(scope="module")
def images(rgb_set, tmp_path_factory):
    """A folder with two images of the dataset, one of them in a subfolder, and a text."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "deep").mkdir()
    for name, image in zip(("a.png", "deep/b.png"), open_dataset(rgb_set).images(range(2)), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    (folder / "notes.txt").write_text("x")
    return [folder / "a.png", folder / "deep" / "b.png"]


@pytest.fixture
def encode(sgan, class_run, encoder_run, tmp_path):
    def run(*args, encoder=encoder_run, into="out", code=0):
        options = ["--model", class_run, "--encoder", encoder, "--outdir", tmp_path / into]
        return sgan("encode", *args, *options, code=code)

    return run


def test_one_image(encode, images, encoder_run, class_run, tmp_path):
    result = encode(images[0])
    out = tmp_path / "out"
    assert names(out) == ["compare.png", "enc.png", "encoded.npz"]
    assert result.stdout.splitlines()[-1] == str(out / "compare.png")
    snapshot = latest_snapshot(encoder_run)
    assert f"Encoder: {snapshot} (held-out images: PSNR" in result.stderr and "a: PSNR" in result.stderr
    record = read_metadata(out / "enc.png")
    assert record["target"] == "a" and record["encoder"] == snapshot.name and record["model"]
    session = stylegan_cli.open(class_run)
    expected = session.encode(images=[images[0]], encoder=encoder_run)
    with np.load(out / "encoded.npz", allow_pickle=False) as f:
        assert np.array_equal(f["w"], expected.ws.numpy()) and f["names"].tolist() == ["a"]
        assert str(f["model"]) == session.fingerprint
        settings = json.loads(str(f["settings"]))
    assert settings["encoder"] == snapshot.name and "projection" not in settings
    assert np.array_equal(pixels(out / "enc.png"), expected.images[0].permute(1, 2, 0).numpy())


def test_several_images_and_json(encode, images, tmp_path):
    answer = json.loads(encode(*images, "--json").stdout)
    files = [f"{name}-{end}" for name in "ab" for end in ("enc.png", "encoded.npz")]
    assert names(tmp_path / "out") == [*files, "compare.png"]
    assert [found["name"] for found in answer["found"]] == ["a", "b"]
    assert all(0 < found["psnr"] < 99 for found in answer["found"])
    assert answer["encoder"].endswith(".safetensors") and answer["files"][-1].endswith("compare.png")
    assert encode(*images, "-q", into="quiet").stderr == ""


def test_a_folder_and_a_zip(encode, images, tmp_path):
    encode(*images)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as z:
        for path in images:
            z.write(path, path.name)
    for source, found in ((images[0].parent, ["a.png", "deep/b.png"]), (tmp_path / "both.zip", ["a.png", "b.png"])):
        result = encode(source, into="many")
        assert names(tmp_path / "many") == ["encoded.npz"]
        assert result.stdout.splitlines()[-1] == str(tmp_path / "many" / "encoded.npz")
        assert "2 images: PSNR" in result.stderr
        with np.load(tmp_path / "many" / "encoded.npz") as f:
            assert f["names"].tolist() == found
            for i, name in enumerate("ab"):
                with np.load(tmp_path / "out" / f"{name}-encoded.npz") as one:
                    assert np.allclose(f["w"][i], one["w"][0], atol=1e-4)
        answer = json.loads(encode(source, "--batch", "1", "--json", into="many").stdout)
        assert [one["name"] for one in answer["found"]] == found


def test_other_commands_use_the_latents(sgan, encode, images, class_run, encoder_run, tmp_path):
    encode(*images)
    encode(images[0].parent, into="many")
    a, b = (tmp_path / "out" / f"{name}-encoded.npz" for name in "ab")
    many = tmp_path / "many" / "encoded.npz"
    common = ["--model", class_run, "-q"]
    sgan("generate", *common, "--from-w", a, "--outdir", tmp_path / "again")
    assert np.abs(pixels(tmp_path / "again" / "w0000.png") - pixels(tmp_path / "out" / "a-enc.png")).max() <= 1
    sgan("generate", *common, "--from-w", many, "--outdir", tmp_path / "all")
    for i, name in enumerate("ab"):
        shown = pixels(tmp_path / "all" / f"w000{i}.png")
        assert np.abs(shown - pixels(tmp_path / "out" / f"{name}-enc.png")).max() <= 1
    sgan("mix", *common, "--rows", f"{a},{many}", "--cols", b, "--outdir", tmp_path / "mix")
    assert (tmp_path / "mix" / "mix.png").is_file()
    sgan("interpolate", *common, "--seeds", f"{a},{b}", "--frames", "2", "--outdir", tmp_path / "video")
    sgan("edit", "find", *common, "--method", "sefa", "--outdir", tmp_path / "edit")
    (directions,) = (tmp_path / "edit").glob("*.npz")
    apply = ["--directions", directions, "--seeds", a, "--direction", "0", "--strength", "1"]
    sgan("edit", "apply", *common, *apply, "--outdir", tmp_path / "edited")
    quick = ["--loss", "pixel", "--steps", "2", "--outdir", tmp_path / "projected"]
    sgan("project", *common, images[0], "--init", a, "--space", "w+", *quick)
    assert (tmp_path / "projected" / "projected.npz").is_file()


def test_projection_from_the_encoder(sgan, class_run, encoder_run, images, tmp_path):
    """After no step, the result is that of the encoder; the distance can only fall."""
    line = ["project", *images, "--model", class_run, "--init", "encoder", "--loss", "pixel", "--space", "w+"]
    line += ["--outdir", tmp_path, "--noise", "const", "--json"]
    named = ["--encoder", encoder_run]
    first = json.loads(sgan(*line, *named, "--steps", "1").stdout)["found"]
    later = json.loads(sgan(*line, "--runs", encoder_run.parent, "--steps", "20").stdout)["found"]
    assert all(b["distance"] <= a["distance"] * 1.001 for a, b in zip(first, later, strict=True))
    settings = json.loads(str(np.load(tmp_path / "a-projected.npz")["settings"]))
    assert settings["projection"]["steps"] == 20


def test_options_of_a_projection_without_effect(sgan, class_run, encoder_run, images, tmp_path):
    line = ["project", images[0], "--model", class_run, "--outdir", tmp_path / "out", "--loss", "pixel", "-q"]
    assert_error(sgan(*line, "--encoder", encoder_run, code=2), "--init encoder")
    assert_error(sgan(*line, "--init", "encoder", "--candidates", "3", code=2), "--init")
    assert_error(sgan(*line, "--init", "encoder", "--runs", tmp_path, code=1), "sgan encoder fit")
    assert not (tmp_path / "out").exists()


def test_shapes_of_images(encode, tmp_path):
    """Of any size and mode; cropped or padded as requested; a far-off aspect ratio is refused."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (100, 300, 4), dtype=np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "gray.png")
    found = {}
    for options in ((), ("--crop", "pad"), ("--crop", "pad", "--pad", "#ff0000"), ("--crop", "none")):
        encode(tmp_path / "wide.png", *options)
        with np.load(tmp_path / "out" / "encoded.npz") as f:
            found[options] = f["w"]
    assert len({w.tobytes() for w in found.values()}) == 4
    encode(tmp_path / "gray.png")
    Image.new("RGB", (600, 20)).save(tmp_path / "long.png")
    assert_error(encode(tmp_path / "long.png", code=1, into="no"), "20x600 (height x width)", "Crop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "long.png").rename(tmp_path / "folder" / "long.png")
    assert_error(encode(tmp_path / "folder", code=1, into="no"), "long.png", "20x600 (height x width)")
    assert not (tmp_path / "no").exists()


def test_a_rectangle_with_alpha(sgan, tiny_run, rgba_set, tmp_path):
    """24 x 48 RGBA, without --encoder, and in a folder."""
    fit = ["--model", tiny_run, "--runs", tmp_path / "runs", "--kimg", "0.008", "--batch", "8", "-q"]
    sgan("encoder", "fit", *fit)
    sgan("encode", rgba_set, "--model", tiny_run, "--runs", tmp_path / "runs", "--outdir", tmp_path / "out", "-q")
    with np.load(tmp_path / "out" / "encoded.npz") as f:
        assert len(f["w"]) == 40
    sgan("generate", "--model", tiny_run, "--from-w", tmp_path / "out" / "encoded.npz", "--outdir", tmp_path, "-q")
    assert Image.open(tmp_path / "w0039.png").mode == "RGBA"


def test_refused(encode, images, encoder_run, class_run, tmp_path):
    (tmp_path / "text.png").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "text.zip").write_text("x")
    cases = {
        "No image to encode": [],
        "does not exist": [tmp_path / "missing.png"],
        "missing.zip": [tmp_path / "missing.zip"],
        "text.png cannot be read": [tmp_path / "text.png"],
        "empty contains no images": [tmp_path / "empty"],
        "texts contains no images": [tmp_path / "texts"],
        "empty.zip contains no images": [tmp_path / "empty.zip"],
        "text.zip": [tmp_path / "text.zip"],
        "named alone": [images[0].parent, images[0]],
        "no effect": [images[0], "--pad", "red"],
    }
    for message, args in cases.items():
        result = encode(*args, code=None)
        assert_error(result, message)
    assert not (tmp_path / "out").exists()


def test_damaged_images_in_a_folder(encode, images, tmp_path):
    """They are named and omitted; without any other nothing is written."""
    (tmp_path / "set").mkdir()
    data = images[0].read_bytes()
    (tmp_path / "set" / "b.png").write_bytes(data[: len(data) // 2])
    assert_error(encode(tmp_path / "set", code=1), "No image in", "b.png", "cannot be read")
    assert not (tmp_path / "out").exists()
    (tmp_path / "set" / "a.png").write_bytes(data)
    (tmp_path / "set" / "c.png").write_bytes(images[1].read_bytes())
    result = encode(tmp_path / "set")
    assert "Not encoded: b.png, which cannot be read" in result.stderr
    with np.load(tmp_path / "out" / "encoded.npz") as f:
        assert f["names"].tolist() == ["a.png", "c.png"] and len(f["w"]) == 2


def test_bad_encoders(encode, sgan, images, class_run, tiny_run, encoder_run, tmp_path):
    snapshot = latest_snapshot(encoder_run)
    cut, nan = tmp_path / "cut.safetensors", tmp_path / "nan.safetensors"
    cut.write_bytes(snapshot.read_bytes()[:5000])
    with safetensors.safe_open(snapshot, "pt") as f:
        tensors, header = {name: f.get_tensor(name) for name in f.keys()}, f.metadata()  # noqa: SIM118 (not a dict)
    tensors["E.common.bias"][0] = float("nan")
    safetensors.torch.save_file(tensors, nan, header)
    cases = {
        "does not exist": tmp_path / "none.safetensors",
        "damaged": cut,
        "not finite": nan,
        "not an encoder": MODEL,
        "no snapshot of an encoder": tmp_path,
        "but not an encoder": class_run,
    }
    for message, encoder in cases.items():
        assert_error(encode(images[0], encoder=encoder, code=1), message)
    result = sgan("encode", images[0], "--model", tiny_run, "--encoder", snapshot, "--outdir", tmp_path / "out", code=1)
    assert_error(result, "fingerprint", "--any-model")
    more = ["--model", tiny_run, "--encoder", snapshot, "--any-model", "--outdir", tmp_path / "out"]
    assert_error(sgan("encode", images[0], *more, code=1), "does not fit this model")
    result = sgan(
        "translate", images[0], "--model", class_run, "--encoder", snapshot, "--outdir", tmp_path / "out", code=1
    )
    assert_error(result, "not fitted for a task of translation", "sgan encode")
    assert not (tmp_path / "out").exists()


def test_an_encoder_of_another_snapshot_of_the_run(sgan, encode, images, class_run, encoder_run, tmp_path):
    """Is accepted, and noted in the metadata."""
    first = class_run / "snapshot-000000.016.safetensors"
    sgan("encode", images[0], "--model", first, "--encoder", encoder_run, "--outdir", tmp_path / "out", "-q")
    assert "another snapshot of this run" in read_metadata(tmp_path / "out" / "enc.png")["model_note"]


def test_outputs_do_not_replace_inputs(encode, images, encoder_run, tmp_path):
    (tmp_path / "out").mkdir()
    image = tmp_path / "out" / "enc.png"
    image.write_bytes(images[0].read_bytes())
    assert_error(encode(image, code=1), "overwritten", "--outdir")
    assert image.read_bytes() == images[0].read_bytes() and names(tmp_path / "out") == ["enc.png"]
    sheet = tmp_path / "out" / "compare.png"
    image.rename(sheet)
    assert_error(encode(sheet, code=1), "overwritten")
    assert sheet.read_bytes() == images[0].read_bytes()


def test_an_unwritable_folder(encode, images, tmp_path):
    (tmp_path / "out").write_text("x")
    assert_error(encode(images[0], code=1), "Cannot write")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted(class_run, encoder_run, rgb_set, tmp_path):
    """Nothing is half written."""
    with zipfile.ZipFile(rgb_set) as source, zipfile.ZipFile(tmp_path / "many.zip", "w") as z:
        data = source.read("00000/img00000000.png")
        for i in range(30_000):
            z.writestr(f"{i:06d}.png", data)
    command = [sys.executable, "-m", "stylegan_cli", "encode", str(tmp_path / "many.zip"), "--model", str(class_run)]
    command += ["--encoder", str(encoder_run), "--outdir", str(tmp_path / "out"), "--batch", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    assert not (tmp_path / "out").is_dir() or names(tmp_path / "out") == []
