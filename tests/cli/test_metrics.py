"""`sgan metrics`, with detectors that need no weights."""

import json
from pathlib import Path

import pytest

from stylegan_cli.errors import SganError

pytestmark = pytest.mark.usefixtures("detectors")


def assert_error(result, *words):
    assert result.stderr.startswith("Error: ") and len(result.stderr.strip().splitlines()) <= 5, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.fixture
def run(sgan, rgb_set, tmp_path):
    """The folder of a run with two snapshots."""
    line = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", "--batch", "8", "--cbase", "64", "--cmax", "8"]
    line += ["--map-depth", "2", "--aug", "noaug", "--kimg", "0.016", "--snap", "0.008", "-q"]
    sgan(*line)
    return tmp_path / "runs" / "00000-rgb-auto"


def test_metrics_are_listed_without_a_name(sgan):
    lines = sgan("metrics").stdout.splitlines()
    assert "fid  fid50k_full" in lines[0] and len(lines) == 17


@pytest.mark.parametrize("cfg", ["demo-lapgan", "demo-stackgan"])
def test_chains_are_measured_during_training_and_afterwards(sgan, rgb_set, tmp_path, cfg):
    line = ["train", "--cfg", cfg, "--data", rgb_set, "--runs", tmp_path / "runs", "--batch", "8", "--cbase", "64"]
    run = sgan(*line, "--cmax", "8", "--kimg", "0.016", "--snap", "0.008", "-q", "--metrics", "fid40_full")
    folder = Path(run.stdout.strip())
    lines = [json.loads(line) for line in (folder / "metric-fid40_full.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    result = sgan("metrics", "fid", "ppl", "--num", "40", "--model", folder)
    values = dict(line.split()[:2] for line in result.stdout.splitlines())
    assert float(values["fid40_full"]) == pytest.approx(lines[-1]["value"], rel=1e-3)
    assert any(name.startswith("ppl") for name in values)


def test_values_are_printed_and_recorded_beside_the_model(sgan, run):
    result = sgan("metrics", "fid", "pr", "--num", "40", "--model", run / "snapshot-000000.016.safetensors")
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == ["fid40_full", "pr40_k3_full_precision", "pr40_k3_full_recall"]
    assert "(32 real, 40 generated images)" in result.stdout and "Compare it only with values" in result.stderr
    (line,) = (run / "metric-fid40_full.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["snapshot"] == "snapshot-000000.016.safetensors" and record["kimg"] == 0.016
    assert float(result.stdout.split()[1]) == pytest.approx(record["value"], rel=1e-4)


def test_each_snapshot_of_a_run_is_measured_once(sgan, run):
    first = sgan("metrics", "fid", "--num", "40", "--model", run)
    assert len(first.stdout.splitlines()) == 2
    lines = [json.loads(line) for line in (run / "metric-fid40_full.jsonl").read_text().splitlines()]
    assert [line["kimg"] for line in lines] == [0.008, 0.016]
    again = sgan("metrics", "fid", "--num", "40", "--model", run)
    assert again.stdout == "" and again.stderr.count("has already been measured") == 2
    assert len(sgan("metrics", "fid", "--num", "40", "--seed", "1", "--model", run).stdout.splitlines()) == 2
    page = Path(sgan("runs", "show", run).stdout.strip())
    assert "fid40_full" in page.read_text()


def test_another_dataset_is_recorded_under_another_name(sgan, run, make_set, tmp_path):
    other = make_set(tmp_path / "other set.zip", num=20)
    assert "fid40_full_on_other-set " in sgan("metrics", "fid", "--num", "40", "--model", run, "--data", other).stdout
    assert not (run / "metric-fid40_full.jsonl").exists()
    assert len(sgan("metrics", "fid", "--num", "40", "--model", run).stdout.splitlines()) == 2
    again = sgan("metrics", "fid", "--num", "40", "--model", run, "--data", other)
    assert again.stdout == ""


def test_missing_training_images(sgan, run, rgb_set, tmp_path, monkeypatch):
    """Path length needs no images; for FID the message says which option to use."""
    from stylegan_cli.data import dataset

    monkeypatch.setattr(dataset, "open_source", lambda path, _: (_ for _ in ()).throw(SganError(f"{path} is gone.")))
    model = run / "snapshot-000000.016.safetensors"
    assert "ppl2_wend_20" in sgan("metrics", "ppl", "--num", "20", "--model", model).stdout
    assert_error(sgan("metrics", "fid", "--num", "20", "--model", model, "-q", code=1), "cannot be opened", "--data")


def test_json_is_one_line(sgan, run):
    result = sgan("metrics", "ppl", "--num", "20", "--model", run / "snapshot-000000.016.safetensors", "--json")
    record = json.loads(result.stdout)
    assert record["values"].keys() == {"ppl2_wend_20"} and record["num_images"]["ppl2_wend_20"] == [0, 20]
    assert result.stderr == ""


def test_truncation_is_part_of_the_name(sgan, run):
    line = ["metrics", "is", "--num", "20", "--trunc", "0.5", "--model", run / "snapshot-000000.016.safetensors"]
    assert sgan(*line, "-q").stdout.startswith("is20_trunc0.5")


def test_two_datasets(sgan, rgb_set, make_set, tmp_path):
    other = make_set(tmp_path / "other.zip", num=20)
    assert "fid20_full" in sgan("metrics", "fid", "--images", rgb_set, other).stdout
    assert_error(sgan("metrics", "fid", "--images", rgb_set, other, "--data", "x", code=2), "--data", "--images")
    assert_error(sgan("metrics", "ppl", "--images", rgb_set, other, code=1), "measures a model")
    assert_error(sgan("metrics", "fid", "--images", rgb_set, other, "--trunc", "0.5", code=2), "--trunc")
    assert_error(sgan("metrics", "fid", "--images", rgb_set, tmp_path / "none", code=1), "none")


def test_dataset_of_another_size(sgan, run, make_set, tmp_path):
    larger = make_set(tmp_path / "larger.zip", (32, 32, 3), 30)
    model = run / "snapshot-000000.016.safetensors"
    result = sgan("metrics", "fid", "--num", "20", "--model", model, "--data", larger)
    assert "30 real" in result.stdout
    small = make_set(tmp_path / "small.zip", (8, 8, 3), 30)
    assert_error(sgan("metrics", "fid", "--num", "20", "--model", model, "--data", small, "-q", code=1), "16x16", "8x8")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["fidd"], ("fidd", "Did you mean fid?")),
        (["fid", "--num", "1"], ("at least 2 images",)),
        (["fid", "--features", "dino"], ("dino", "efficientnet-lite0")),
        (["fid", "--model", "none.safetensors"], ("none.safetensors",)),
    ],
    ids=lambda x: " ".join(x),
)
def test_bad_input(sgan, line, words):
    assert_error(sgan("metrics", *line, code=None), *words)


def test_metrics_during_training(sgan, rgb_set, tmp_path, monkeypatch):
    from stylegan_cli.data import dataset

    opened, open_source = [], dataset.open_source
    monkeypatch.setattr(dataset, "open_source", lambda path, size: opened.append(path) or open_source(path, size))
    line = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", "--batch", "8", "--cbase", "64", "--cmax", "8"]
    line += ["--map-depth", "2", "--aug", "noaug", "--kimg", "0.016", "--snap", "0.008"]
    result = sgan(*line, "--metrics", "fid40_full,is20")
    assert len(opened) == 1, "the dataset is opened once for planning, training and metrics"
    run = tmp_path / "runs" / "00000-rgb-auto"
    assert "fid40_full" in result.stderr and (run / "best.safetensors").is_file()
    values = [json.loads(x)["value"] for x in (run / "metric-fid40_full.jsonl").read_text().splitlines()]
    assert len(values) == 2 and (run / "metric-is20.jsonl").is_file()
    best = min(range(2), key=values.__getitem__)
    name = ("snapshot-000000.008", "snapshot-000000.016")[best] + ".safetensors"
    assert (run / "best.safetensors").read_bytes() == (run / name).read_bytes()
    again = sgan("metrics", "fid40_full", "is20", "--model", run)
    assert again.stdout == "" and again.stderr.count("has already been measured") == 2
    assert sgan("metrics", "fid40_full", "--seed", "1", "--model", run).stdout != ""
    assert_error(sgan(*line, "--metrics", "fidd", "-q", code=2), "fidd")


# --------------------------------------------------------------------------------------------- equivariance


def test_equivariance_in_training(sgan, rgb_set, tmp_path):
    """Measured at each snapshot, in dB."""
    line = ["train", "--cfg", "demo-stylegan3", "--data", rgb_set, "--runs", tmp_path / "runs", "--batch", "8"]
    line += ["--cbase", "64", "--cmax", "4", "--aug", "noaug", "--kimg", "0.016", "--snap", "0.008"]
    sgan(*line, "--metrics", "eqt4_int", "-q")
    (folder,) = (tmp_path / "runs").iterdir()
    values = [json.loads(text)["value"] for text in (folder / "metric-eqt4_int.jsonl").read_text().splitlines()]
    assert len(values) >= 2 and f"eqt4_int {values[-1]:.4g} dB" in (folder / "log.txt").read_text()
    best = f"{max(values):.5g} dB"
    assert best in sgan("runs", "--runs", folder.parent).stdout
    assert not (folder / "best.safetensors").exists()  # equivariance says nothing about quality
    shown = sgan("metrics", "eqr", "--num", "2", "--model", folder).stdout.split()
    assert shown[0] == "eqr2" and shown[2] == "±" and shown[4] == "dB"


def test_equivariance_needs_an_input_transform(sgan, run, rgb_set, tmp_path):
    refusal = "needs a model with an input transform, which this StyleGAN2 model does not have."
    assert_error(sgan("metrics", "eqt", "--model", run, code=1), refusal)
    line = ["train", "--data", rgb_set, "--runs", tmp_path / "new", "--metrics", "eqt1k_int", "-q"]
    assert_error(sgan(*line, code=1), refusal)
    assert not (tmp_path / "new").exists()
