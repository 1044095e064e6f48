"""`sgan translate fit --recipe pix2pix` and `sgan translate` with what it makes: files, seeds, bad input."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata

SHORT = ["--kimg", "0.016", "--snap", "0.016", "--batch", "8", "--held-out", "4", "-q"]
FIT = ["translate", "fit", "--task", "pairs", "--recipe", "pix2pix"]


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def pair(rgba_set, make_set, tmp_path_factory):
    """Images of 24 x 48 with alpha, and larger gray ones of the same names."""
    return rgba_set, make_set(tmp_path_factory.mktemp("source") / "gray.zip", (48, 96), 40)


@pytest.fixture(scope="module")
def fitted(sgan, pair, tmp_path_factory):
    """The folder of a run."""
    runs = tmp_path_factory.mktemp("runs")
    result = sgan(*FIT, "--data", pair[0], "--source", pair[1], "--runs", runs, *SHORT)
    return runs / result.stdout.strip().split("/")[-1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (24, 48, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def translate(sgan, fitted, photos, tmp_path):
    def run(*words, image=photos / "a.png", encoder=fitted, code=0):
        return sgan("translate", image, "--encoder", encoder, "--outdir", tmp_path / "out", *words, code=code)

    return run


def test_files(translate, fitted, tmp_path):
    """The first result is without dropout; there are no latents."""
    result = translate("--num", "3", "--seed", "5", "--json")
    answer, out = json.loads(result.stdout), tmp_path / "out"
    assert answer["task"] == "pairs" and answer["encoder"] == str(fitted / "snapshot-000000.016.safetensors")
    assert names(out) == ["a-1.png", "a-2.png", "a-3.png", "compare.png"]
    assert answer["found"] == [{"name": "a"}] and answer["files"][-1] == str(out / "compare.png")
    images = [pixels(out / f"a-{k}.png") for k in (1, 2, 3)]
    assert all(image.shape == (24, 48, 4) for image in images) and len({i.tobytes() for i in images}) == 3
    assert "pix2pix; held-out images: PSNR" in result.stderr and "Model:" not in result.stderr
    assert [read_metadata(out / f"a-{k}.png").get("dropout_seed") for k in (1, 2, 3)] == [None, "5", "6"]
    translate("--num", "2", "--seed", "6")
    assert np.array_equal(pixels(out / "a-2.png"), images[2]) and np.array_equal(pixels(out / "a-1.png"), images[0])


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_or_zip(translate, photos, tmp_path, kind):
    source = tmp_path / "photos.zip"
    with zipfile.ZipFile(source, "w") as z:
        for path in sorted(photos.iterdir()):
            z.write(path, path.name)
        z.writestr("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    if kind == "folder":
        with zipfile.ZipFile(source) as z:
            z.extractall(source := tmp_path / "photos")
    result = translate("--num", "2", "--batch", "2", image=source)
    assert names(tmp_path / "out") == sorted([*(f"{n}-{k}.png" for n in "abc" for k in (1, 2)), "compare.png"])
    assert result.stderr.count("Not translated") == 1 and "broken.png" in result.stderr
    both = [pixels(tmp_path / "out" / f"a-{k}.png") for k in (1, 2)]
    translate("--num", "2")
    assert all(np.abs(pixels(tmp_path / "out" / f"a-{k}.png") - both[k - 1]).max() <= 1 for k in (1, 2))


def test_what_is_known_of_it(sgan, fitted):
    shown = sgan("model", "info", fitted).stdout
    assert "pix2pix, 24x48 (height x width), gray to RGBA" in shown and "Held out: psnr" in shown
    info = json.loads(sgan("model", "info", fitted, "--json").stdout)["info"]
    assert info["generator"]["inputs"] == 1 and info["kimg"] == 0.016
    assert "pix2pix" in sgan("runs", "--runs", fitted.parent).stdout
    report = sgan("runs", "show", fitted).stdout.strip()
    assert "PSNR of held-out images" in Path(report).read_text(encoding="utf-8")


def test_resume(sgan, fitted, tmp_path):
    words = ["translate", "fit", "--resume", fitted, "-q"]
    assert "is complete at 0.016 kimg" in sgan(*words, code=1).stderr
    for option in (["--lr", "0.1"], ["--recipe", "pix2pix"], ["--model", "x"]):
        assert f"{option[0]} cannot be changed when a run is resumed" in sgan(*words, *option, code=2).stderr
    assert "the recipe 'pix2pix'" in sgan("train", "--resume", fitted, "-q", code=1).stderr
    result = sgan(*words, "--kimg", "0.024")
    assert (fitted / "snapshot-000000.024.safetensors").is_file() and "sgan translate IMAGE" in result.stderr
    (fitted / "snapshot-000000.024.safetensors").unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "x"], "--model has no effect on --recipe pix2pix"),
        (["--skips"], "--skips has no effect"),
        (["--adversarial", "1"], "--adversarial has no effect"),
        (["--passes", "2"], "--passes has no effect"),
        (["--space", "w"], "--space has no effect"),
        (["--loss", "pixel"], "--loss has no effect"),
        (["--editable"], "--editable has no effect"),
        (["--segmenter", "x"], "--segmenter has no effect"),
        (["--factor", "2"], "--factor has no effect"),
        (["--sparse"], "--sparse has no effect"),
        (["--identity", "face"], "--identity has no effect"),
        (["--task", "sketch"], "--recipe pix2pix is for --task pairs, not sketch"),
        (["--batch", "3", "--batch-gpu", "2"], "--batch 3 is not a multiple"),
        (["--held-out", "40"], "--held-out 40 leaves no image"),
    ],
)
def test_settings_that_are_refused(sgan, pair, tmp_path, words, message):
    fit = [*FIT, "--data", pair[0], "--source", pair[1], "--runs", tmp_path / "runs", *words]
    assert message in sgan(*fit, code=2).stderr and not (tmp_path / "runs").exists()


def test_pairs_that_are_refused(sgan, pair, photos, make_set, tmp_path):
    end = ["--runs", tmp_path / "runs"]
    assert "needs --data PATH" in sgan(*FIT, "--source", pair[1], *end, code=2).stderr
    assert "needs --source PATH" in sgan(*FIT, "--data", pair[0], *end, code=2).stderr
    assert "Missing option --task" in sgan("translate", "fit", "--recipe", "pix2pix", *end, code=2).stderr
    others = ["--data", pair[0], "--source", photos]
    assert "no image of the same name for 40 images" in sgan(*FIT, *others, *end, code=1).stderr
    square = make_set(tmp_path / "square.zip", (48, 48), 40)
    assert "not the aspect ratio of 24x48" in sgan(*FIT, "--data", pair[0], "--source", square, *end, code=1).stderr
    assert "cannot be enlarged to 48x96" in sgan(*FIT, "--data", pair[1], "--source", pair[0], *end, code=1).stderr
    odd = make_set(tmp_path / "odd.zip", (20, 20), 40)
    assert "cannot translate images of 20x20" in sgan(*FIT, "--data", odd, "--source", odd, *end, code=1).stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "x"], "--model has no effect"),
        (["--any-model"], "--any-model has no effect"),
        (["--task", "sketch"], "was fitted for the task pairs"),
        (["--num", "2", "--styles", "fine"], "--styles has no effect"),
        (["--trunc", "0.5"], "--trunc has no effect"),
        (["--mask", "x.png"], "--mask has no effect"),
    ],
)
def test_uses_that_are_refused(translate, tmp_path, words, message):
    assert message in translate(*words, code=2).stderr and not (tmp_path / "out").exists()


def test_a_run_is_named_where_an_encoder_is_missing(sgan, fitted, photos, tmp_path):
    line = ("translate", photos / "a.png", "--task", "pairs", "--runs", fitted.parent, "--outdir", tmp_path / "out")
    assert f"Use a translator without a model: --encoder {fitted}" in sgan(*line, code=1).stderr


def test_files_that_are_refused(sgan, translate, fitted, photos, tmp_path):
    assert "does not exist" in translate(encoder=tmp_path / "nothing", code=1).stderr
    assert "does not exist" in translate(image=tmp_path / "nothing.png", code=1).stderr
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((fitted / "snapshot-000000.016.safetensors").read_bytes()[:-100])
    assert "damaged" in translate(encoder=damaged, code=1).stderr
    assert "is a translator of pix2pix, not a model" in sgan("generate", "--model", fitted, code=1).stderr
    assert "not an encoder" in sgan("encode", photos / "a.png", "--encoder", fitted, code=1).stderr
    assert not (tmp_path / "out").exists()
