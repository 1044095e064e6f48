"""`sgan spectrum` end to end: files, numbers, refusals."""

import json

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import read_metadata


def test_dataset_and_models_in_one_comparison(sgan, rgba_set, tiny_run, tmp_path):
    line = ["--data", rgba_set, "--model", tiny_run, "--model", tiny_run, "--num", "6", "--outdir", tmp_path]
    result = sgan("spectrum", *line, "--json", "-q")
    answer = json.loads(result.stdout)
    names = [one["name"] for one in answer["spectra"]]
    assert names[0] == "rgba" and names[2] == f"{names[1]} (2)" and "snapshot-" in names[1]
    assert answer["files"][-1] == str(tmp_path / "spectrum-slices.png") and result.stderr == ""
    assert sorted(map(str, tmp_path.iterdir())) == sorted(answer["files"])
    assert len({(one["mean"], one["std"]) for one in answer["spectra"]}) == 1, "those of the dataset"
    assert answer["spectra"][1]["slices"] == answer["spectra"][2]["slices"]
    assert json.loads((tmp_path / "spectrum.json").read_text()) == answer["spectra"]
    with np.load(tmp_path / "spectrum-rgba.npz") as stored:
        assert stored["spectrum"].shape == (96, 192) and stored["image_size"].tolist() == [24, 48]
        decibels = 10 * np.log10(stored["spectrum"][0, :97])
    assert answer["spectra"][0]["slices"]["0"]["decibels"] == pytest.approx(decibels.tolist(), abs=1e-3)
    for name in ("spectrum-heatmap", "spectrum-slices"):
        assert read_metadata(tmp_path / f"{name}.png")["inputs"].startswith("rgba, ")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.mode == "RGB" and image.width > 600


def test_default_is_the_newest_model_and_its_dataset(sgan, tiny_run, tmp_path):
    result = sgan("spectrum", "--runs", tiny_run.parent, "--num", "2", "--outdir", tmp_path)
    assert result.stdout == f"{tmp_path / 'spectrum-slices.png'}\n" and "snapshot-" in result.stderr
    assert [one["name"] for one in json.loads((tmp_path / "spectrum.json").read_text())][0] == "rgba"


def test_square_images_are_stored_as_published(sgan, rgb_set, tmp_path):
    sgan("spectrum", "--data", rgb_set, "--outdir", tmp_path, "-q")
    with np.load(tmp_path / "spectrum-rgb.npz") as stored:
        assert stored["image_size"] == 16 and stored["spectrum"].shape == (64, 64) and stored["num"] == 32
        images = open_dataset(rgb_set).images(range(32)).numpy()
        assert stored["mean"] == pytest.approx(images.mean()) and stored["std"] == pytest.approx(images.std())


def test_refused(sgan, rgb_set, tiny_run, tmp_path):
    line = ["--data", rgb_set, "--outdir", tmp_path / "out", "-q"]
    result = sgan("spectrum", *line, "--model", tiny_run, code=1)
    assert "16x16" in result.stderr and "24x48" in result.stderr and len(result.stderr.splitlines()) <= 5
    sgan("spectrum", *line, "--size", "32", code=1)
    sgan("spectrum", "--data", tmp_path / "no.zip", code=1)
    sgan("spectrum", *line, "--num", "0", code=2)
    assert not (tmp_path / "out").exists()
