"""`sgan edit` end to end: finding, showing and applying directions, using the results, errors."""

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
def here(tmp_path, monkeypatch):
    """An empty current folder with its own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def edit(sgan, tiny_run, here):
    """Edit with the tiny run, whose levels are 4 to 32, and 40 seeds: edit('find') -> click's result."""

    def run(command, *args, model=tiny_run, code=0):
        few = ["--num", "40"] if command == "find" and "--num" not in args else []
        return sgan("edit", command, *args, *few, "--model", model, "-q", code=code)

    return run


@pytest.fixture
def pca(edit, here):
    """The file of five principal components."""
    edit("find", "--count", "5")
    return here / "out" / "directions-pca.npz"


def test_find(sgan, tiny_run, here):
    result = sgan("edit", "find", "--num", "40", "--count", "3", "--model", tiny_run)
    *table, last = result.stdout.splitlines()
    assert last == "out/directions-pca.npz" and "Model: " in result.stderr
    assert table[0].split()[0] == "scale" and [line.split()[1] for line in table[1:]] == ["pca0", "pca1", "pca2"]
    answer = json.loads(sgan("edit", "find", "--num", "40", "--method", "sefa", "--model", tiny_run, "--json").stdout)
    assert answer["method"] == "sefa" and len(answer["directions"]) == 10 and answer["left_out"] == {}
    assert {"name", "scale", "eigenvalue"} <= answer["directions"][0].keys()
    assert (here / answer["file"]).is_file()


def test_find_is_reproducible(edit, here):
    for method in ("pca", "sefa"):
        edit("find", "--method", method)
        first = (here / f"out/directions-{method}.npz").read_bytes()
        edit("find", "--method", method)
        assert (here / f"out/directions-{method}.npz").read_bytes() == first


def test_layers_come_from_the_file(edit, here):
    edit("find", "--method", "sefa", "--layers", "coarse", "--count", "2", "--out", "coarse.npz")
    answer = json.loads(edit("show", "--directions", "coarse.npz", "--seeds", "1", "--json").stdout)
    assert answer["layers"] == [0, 1, 2] and len(answer["files"]) == 2
    answer = json.loads(edit("show", "--directions", "coarse.npz", "--layers", "1,3", "--seeds", "1", "--json").stdout)
    assert answer["layers"] == [1, 3]


def test_strips(edit, pca, here):
    result = edit("show", "--direction", "1-2,pca4", "--seeds", "3,5", "--strengths", "-1,0,2.5")
    files = ["strip01-pca1.png", "strip02-pca2.png", "strip04-pca4.png"]
    assert result.stdout == "out/strip04-pca4.png\n"
    assert names(here / "out") == ["directions-pca.npz", *files]
    sheets = [pixels(here / "out" / name) for name in files]
    assert sheets[0].shape == sheets[1].shape and not np.array_equal(sheets[0], sheets[1])
    assert sheets[0].shape[1] > 3 * 192 and sheets[0].shape[0] > 2 * 96
    record = read_metadata(here / "out" / files[0])
    assert (record["direction"], record["strengths"], record["seeds"]) == ("pca1", "[-1.0, 0.0, 2.5]", "[3, 5]")
    assert "sgan edit show" in record["command"]


def test_strip_has_seven_columns_with_the_image_in_the_middle(edit, pca, here):
    edit("show", "--direction", "0", "--seeds", "3", "--strengths", "-2..2")
    assert read_metadata(here / "out/strip00-pca0.png")["strengths"].count(",") == 6
    whole = pixels(here / "out/strip00-pca0.png")
    edit("show", "--direction", "1", "--seeds", "3", "--strengths", "-2..2")
    other = pixels(here / "out/strip01-pca1.png")
    differ = (whole != other).any((0, 2)).nonzero()[0]
    cells = [np.arange(a, b) for a, b in zip(differ[:-1], differ[1:]) if b - a > 150]
    assert len(cells) == 1, "both strips show the unedited image in the middle"
    assert abs(cells[0].mean() - (differ[0] + differ[-1]) / 2) < 48


def test_apply(sgan, edit, pca, tiny_run, here):
    result = edit("apply", "--direction", "3", "--layers", "0-4", "--strength", "2", "--seeds", "1,2")
    assert result.stdout == "out/edit.png\n"
    files = ["directions-pca.npz", "edit.png", "edit0001.png", "edit0002.png", "edited.npz"]
    assert names(here / "out") == files
    sgan("generate", "--model", tiny_run, "--seeds", "1,2", "--save-w", "--outdir", "as-they-were", "-q")
    with np.load(pca) as d, np.load("as-they-were/w.npz") as before, np.load("out/edited.npz") as after:
        step = after["w"] - before["w"]
        assert np.allclose(step[:, :5], d["vectors"][3] * d["scales"][3] * 2, atol=1e-5)
        assert not step[:, 5:].any() and after["names"].tolist() == ["1", "2"] and after["seeds"].tolist() == [1, 2]
        assert str(after["model"]) == str(before["model"]) == str(d["model"])
        assert json.loads(str(after["settings"]))["edits"] == [["pca3", 2.0]]
    assert not np.array_equal(pixels("out/edit0001.png"), pixels("as-they-were/seed0001.png"))
    sgan("generate", "--model", tiny_run, "--from-w", "out/edited.npz", "--outdir", "again", "-q")
    assert np.abs(pixels("again/w0001.png") - pixels("out/edit0002.png")).max() <= 1
    assert read_metadata("out/edit0001.png")["edits"] == "[['pca3', 2.0]]"


def test_strength_0_keeps_the_image(sgan, edit, pca, tiny_run):
    edit("apply", "--strength", "0", "--seeds", "4")
    sgan("generate", "--model", tiny_run, "--seeds", "4", "--save-w", "--outdir", "plain", "-q")
    with np.load("out/edited.npz") as after, np.load("plain/w.npz") as before:
        assert after["w"].tobytes() == before["w"].tobytes()
    assert np.array_equal(pixels("out/edit0004.png"), pixels("plain/seed0004.png"))


def test_several_directions_can_be_reversed(edit, pca):
    edit("apply", "--direction", "pca1", "--strength", "2", "--direction", "0", "--strength", "-1.5", "--seeds", "4")
    edit("apply", "--seeds", "4", "--strength", "0", "--outdir", "plain")
    back = ["--direction", "0-1", "--strength", "1.5", "--strength", "-2"]
    edit("apply", *back, "--seeds", "out/edited.npz", "--outdir", "back")
    with np.load("back/edited.npz") as again, np.load("plain/edited.npz") as plain:
        assert np.allclose(again["w"], plain["w"], atol=1e-5)
    both = json.loads(edit("apply", "--direction", "0", "--direction", "2", "--strength", "1", "--json").stdout)
    assert both["edits"] == [["pca0", 1.0], ["pca2", 1.0]], "one strength applies to all directions"


def test_noise_and_tuned_weights_of_a_projection_are_kept(sgan, here):
    bundled = ["--runs", here / "none", "-q"]
    sgan("generate", "--seeds", "7", "--outdir", "src", *bundled)
    sgan("project", "src/seed0007.png", "--loss", "pixel", "--steps", "4", "--tune", "3", "--outdir", "proj", *bundled)
    sgan("edit", "find", "--num", "50", "--count", "2", *bundled)
    sgan("edit", "apply", "--seeds", "3,proj/projected.npz", "--strength", "0", "--outdir", "edited", *bundled)
    (tuned,) = (p.name for p in (here / "proj").glob("tuned-*.safetensors"))
    assert {tuned, "edit.png", "edit0003.png", "editseed0007.png", "edited.npz"} == set(names(here / "edited"))
    assert np.abs(pixels("edited/editseed0007.png") - pixels("proj/proj.png")).max() <= 1
    (here / "proj" / tuned).unlink()
    sgan("generate", "--from-w", "edited/edited.npz", "--outdir", "again", *bundled)
    assert np.abs(pixels("again/w0001.png") - pixels("edited/editseed0007.png")).max() <= 1
    sgan("mix", "--rows", "edited/edited.npz", "--cols", "5", "--outdir", "mix", *bundled)


def test_labels_from_a_table(edit, here):
    rows = "".join(f"{seed},{'tall' if seed % 3 else 'none'},{seed * 0.5}\n" for seed in range(60))
    (here / "labels.csv").write_text("seed,hat,age\n" + rows)
    answer = json.loads(edit("find", "--csv", "labels.csv", "--json").stdout)
    assert [d["name"] for d in answer["directions"]] == ["hat=tall", "age>14.5"]
    assert answer["file"] == "out/directions-labels.npz" and {"share", "auc"} < answer["directions"][0].keys()
    some = json.loads(edit("find", "--csv", "labels.csv", "--attributes", "age", "--json").stdout)
    assert [d["name"] for d in some["directions"]] == ["age>14.5"]
    edit("apply", "--direction", "age>14.5", "--seeds", "1")
    edit("show", "--direction", "age>14.5", "--seeds", "1")
    assert (here / "out" / "strip00-age_14.5.png").is_file()


def test_labels_that_the_images_do_not_show(edit, monkeypatch):
    """The "hat" attribute of the tiny dataset is unrelated to its images."""
    monkeypatch.setattr("stylegan_cli.training.recipes.classifier._STEPS", 3)
    result = edit("find", "--from-labels", code=1)
    assert "No value" in result.stderr and "Traceback" not in result.stderr


def test_class(sgan, class_run, here):
    for c in ("0", "2"):
        sgan("edit", "find", "--model", class_run, "--class", c, "--num", "40", "--out", f"{c}.npz", "-q")
    with np.load("0.npz") as a, np.load("2.npz") as b:
        assert not np.array_equal(a["vectors"], b["vectors"])
    result = sgan("edit", "find", "--model", class_run, "--class", "9", "--num", "40", "-q", code=1)
    assert "no class 9" in result.stderr


REFUSED = {
    "apply --direction pca9": "Did you mean 'pca",
    "apply --direction 5": "Choose from 0-4",
    "show --direction 3-7": "Choose from 0-4",
    "apply --layers 6-8": "Choose --layers from 0-7",
    "show --layers 9": "no style 9",
    "apply --strength 1 --strength 2": "2 strengths for 1 direction.",
    "apply --directions missing.npz": "missing.npz does not exist",
    "apply --seeds missing.npz": "missing.npz does not exist",
    "find --count 999": "--count 999 is too large: there are",
    "find --csv missing.csv": "cannot be read",
    "find --csv labels.csv --data x.zip": "two sources",
    "find --from-labels --attributes hut": "Did you mean hat?",
    "find --from-labels --method pca": "does not use labels",
    "find --from-labels --count 3": "has no effect with labels",
    "find --layers 8": "Choose --layers from 0-7",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items())
def test_refused(edit, pca, here, line, message):
    before = names(here / "out")
    result = edit(*line.split(), code=None)
    assert message in result.stderr and len(result.stderr.strip().splitlines()) <= 5
    assert names(here / "out") == before


def test_find_outdir(edit, here):
    assert edit("find", "--count", "2", "--outdir", "d").stdout == "d/directions-pca.npz\n"
    assert edit("find", "--count", "2", "--outdir", "d", "--out", "a.npz").stdout == "d/a.npz\n"
    assert names(here / "d") == ["a.npz", "directions-pca.npz"]
    result = edit("find", "--count", "2", "--outdir", "d", "--out", "e/a.npz", code=2)
    assert "--out e/a.npz is not in --outdir d. Use only one of the two options." in result.stderr
    edit("show", "--directions", "d/a.npz", "--seeds", "1", "--outdir", "strips")
    edit("apply", "--directions", "d/a.npz", "--seeds", "1", "--outdir", "edits")
    assert len(names(here / "strips")) == 2 and "edit.png" in names(here / "edits")


@pytest.mark.parametrize("line", ["show --strengths x", "show --strengths 1..y", "apply --layers 3-1", "find --num 1"])
def test_misused(edit, line):
    assert edit(*line.split(), code=2).stderr.startswith("Usage:")


def test_files_of_another_model(sgan, edit, pca, class_run, here):
    result = sgan("edit", "show", "--directions", pca, "--model", class_run, "-q", code=1)
    assert "fingerprint" in result.stderr and "It was made with --model" in result.stderr
    sgan("generate", "--model", class_run, "--seeds", "1", "--save-w", "--outdir", "other", "-q")
    result = edit("apply", "--seeds", "other/w.npz", code=1)
    assert "fingerprint" in result.stderr


def test_no_directions_yet(edit):
    result = edit("show", code=1)
    assert "no directions in ./out" in result.stderr and "sgan edit find" in result.stderr


def test_newest_file_is_the_default(edit, pca, here):
    edit("find", "--method", "sefa", "--count", "1")
    assert json.loads(edit("show", "--seeds", "1", "--json").stdout)["directions"].endswith("directions-sefa.npz")
