"""`sgan mix` end to end: sheets, single images, errors."""

import json

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def mix(sgan, tiny_run, tmp_path):
    """Mix in the tiny run, whose levels are 4 to 32: mix('--rows', '1') -> the folder."""

    def run(*args, into="out", model=tiny_run):
        result = sgan("mix", "--model", model, "--outdir", tmp_path / into, "-q", *args)
        assert result.stderr == ""
        return tmp_path / into

    return run


@pytest.fixture
def source(sgan, tiny_run, tmp_path):
    """The image of a seed from `sgan generate`."""

    def generate(seed):
        sgan("generate", "--model", tiny_run, "--outdir", tmp_path / "sources", "--seeds", seed, "-q")
        return pixels(tmp_path / "sources" / f"seed{seed:04d}.png")

    return generate


def test_files(mix):
    out = mix("--rows", "85,100", "--cols", "3-5")
    assert names(out) == [
        "mix.png",
        *(f"mix{row:04d}-{col:04d}.png" for row in (85, 100) for col in (3, 4, 5)),
    ]
    cell, sheet = Image.open(out / "mix0085-0003.png"), Image.open(out / "mix.png")
    assert (cell.size, cell.mode, sheet.mode) == ((48, 24), "RGBA", "RGB")
    assert sheet.width > 4 * 48 and sheet.height > 3 * 24


def test_metadata(mix):
    out = mix("--rows", "1", "--cols", "2", "--styles", "0-2", "--trunc", "0.7")
    record = read_metadata(out / "mix0001-0002.png")
    assert (record["row"], record["col"], record["styles"], record["trunc"]) == ("1", "2", "[0, 1, 2]", "0.7")
    assert read_metadata(out / "mix.png")["rows"] == "[1]"
    assert len(record["model"]) == 16 and record["command"].startswith("sgan ")


SPANS = {"coarse": [0, 1, 2], "middle": [3, 4], "fine": [5, 6, 7], "1,3": [1, 3]}


@pytest.mark.parametrize(("styles", "indices"), SPANS.items())
def test_styles(sgan, tiny_run, tmp_path, styles, indices):
    line = ["--rows", "1", "--cols", "2", "--styles", styles, "--json", "-q"]
    answer = json.loads(sgan("mix", "--model", tiny_run, "--outdir", tmp_path, *line).stdout)
    assert answer["styles"] == indices
    assert answer["files"] == [str(tmp_path / "mix0001-0002.png"), str(tmp_path / "mix.png")]


def test_all_styles_of_the_column_are_its_image(mix, source):
    out = mix("--rows", "1-2", "--cols", "7,8", "--styles", "0-7")
    for row in (1, 2):
        for col in (7, 8):
            assert np.abs(pixels(out / f"mix{row:04d}-{col:04d}.png") - source(col)).max() <= 1


def test_some_styles_give_a_mixture(mix, source):
    out = mix("--rows", "1", "--cols", "7", "--styles", "middle")
    mixed = pixels(out / "mix0001-0007.png")
    assert np.abs(mixed - source(1)).max() > 1 and np.abs(mixed - source(7)).max() > 1


def test_mixing_an_image_with_itself(mix, source):
    out = mix("--rows", "4", "--cols", "4", "--styles", "coarse")
    assert np.abs(pixels(out / "mix0004-0004.png") - source(4)).max() <= 1


def test_batch_size_does_not_change_images(mix):
    a, b = mix("--noise-mode", "random"), mix("--noise-mode", "random", "--batch", "5", into="b")
    assert names(a) == names(b) and len(names(a)) == 4 * 6 + 1
    for name in names(a):
        assert np.abs(pixels(a / name) - pixels(b / name)).max() <= 1


def test_sheet_is_the_last_line(sgan, tiny_run, tmp_path):
    result = sgan("mix", "--model", tiny_run, "--outdir", tmp_path, "--rows", "1", "--cols", "2", "--format", "jpg")
    assert result.stdout == f"{tmp_path / 'mix.jpg'}\n"
    assert "Model: " in result.stderr


def test_conditional_model(mix, class_run):
    out = mix("--rows", "1", "--cols", "2", "--class", "none", model=class_run)
    record = read_metadata(out / "mix.png")
    assert (record["class"], record["class_name"]) == ("1", "none")


def test_saved_latents_continue(mix, source):
    """Mixing in two steps: the mixed images, saved and mixed with the row image again, are what they were."""
    first = mix("--rows", "1", "--cols", "2,3", "--styles", "0-2", "--save-w", "--noise-mode", "none")
    again = mix("--rows", first / "w.npz", "--cols", "1", "--styles", "0-2", "--noise-mode", "none", into="again")
    changed = mix("--rows", "1", "--cols", first / "w.npz", "--styles", "0-2", "--noise-mode", "none", into="changed")
    for name, seed in (("mix0001-0002", 2), ("mix0001-0003", 3)):
        image = pixels(first / f"mix0001-{seed:04d}.png")
        assert not np.array_equal(image, source(1))
        assert abs(pixels(changed / f"mix0001-{name}.png") - image).max() <= 1
        restored = pixels(again / f"mix{name}-0001.png")
        assert not np.array_equal(restored, image)


def test_styles_out_of_range(sgan, tiny_run, tmp_path):
    result = sgan("mix", "--model", tiny_run, "--styles", "6-8", "--outdir", tmp_path / "out", "-q", code=1)
    assert "no style 8" in result.stderr and "0-7" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--styles", "coars"], ["--styles", "3-1"], ["--rows", "5-1"], ["--cols", "x"]])
def test_misused(sgan, options):
    result = sgan("mix", *options, code=2)
    assert options[0] in result.stderr and len(result.stderr.strip().splitlines()) <= 5
