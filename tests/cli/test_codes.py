"""A model with codes goes through all commands."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_cli.inversion.factorize import find_codes
from stylegan_cli.metrics.stream import Fakes
from stylegan_cli.models.label_space import Codes
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling.labels import class_labels
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.snapshot import load_snapshot, open_training_dataset, read_info
from stylegan_cli.training.recipes.gan_plan import plan_new_run

TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--kimg", "0.016", "--snap", "0.016", "-q"]


@pytest.fixture(scope="module")
def run(sgan, rgb_set, tmp_path_factory):
    runs = tmp_path_factory.mktemp("codes")
    codes = ["--info", "3", "--info-continuous", "2"]
    return Path(sgan("train", "--data", rgb_set, "--runs", runs, *codes, *TINY).stdout.strip())


@pytest.fixture(scope="module")
def model(run):
    return load_snapshot(latest_snapshot(run))


def test_the_file_says_what_the_codes_are(sgan, run, model):
    assert read_info(latest_snapshot(run)).codes == model.G.label_space.codes == Codes(3, 2)
    shown = sgan("model", "info", run).stdout
    assert "Codes          3 values (--class 0 to 2), the first 2 numbers of z" in shown
    assert "3 codes" in shown and "Classes" not in shown


def test_generate_by_code(sgan, run, tmp_path):
    result = sgan("generate", "--model", run, "--seeds", "0-5", "--class", "2", "--outdir", tmp_path / "a")
    assert "Classes: 2 (6)." in result.stderr
    result = sgan("generate", "--model", run, "--seeds", "0-59", "--outdir", tmp_path / "b")
    assert all(f"{k} (" in result.stderr for k in range(3))
    assert "no class" in sgan("generate", "--model", run, "--class", "3", "--outdir", tmp_path, code=None).stderr


def test_metrics_sample_codes_without_labels_of_the_dataset(model):
    dataset = open_training_dataset(model.info)
    assert dataset.spec.c_dim == 0
    labels = Fakes(model.G, None, torch.device("cpu")).labels(torch.arange(300))
    assert labels.shape == (300, 3) and (labels.mean(0) - 1 / 3).abs().max() < 0.1


def test_directions_of_codes(model):
    """From the other values to a value; the figure is the share of the variance that follows the code."""
    directions = find_codes(model.G, range(model.G.num_ws), 400)
    assert directions.names == ["code=0", "code=1", "code=2", "z0", "z1"]
    labels = class_labels(None, range(400), model.G.label_space).double()
    z = latents_from_seeds(range(400), 512)
    with torch.no_grad():
        w = model.G.mapping(z, labels.float())[:, 0].double()
    for k in range(3):
        difference = w[labels[:, k] > 0].mean(0) - w[labels[:, k] == 0].mean(0)
        similarity = torch.cosine_similarity(difference, directions.vectors[k].double(), 0)
        assert similarity.item() == pytest.approx(1, abs=1e-5)
        along = w @ directions.vectors[k].double()
        expected = np.corrcoef(along.numpy(), labels[:, k].numpy())[0, 1] ** 2
        assert directions.figures["explained"][k] == pytest.approx(expected, abs=1e-6)
    slope = ((z[:, :1] - z[:, :1].mean()).double() * w).mean(0)
    assert torch.cosine_similarity(slope, directions.vectors[3].double(), 0).item() == pytest.approx(1, abs=1e-5)


def test_edit_with_codes(sgan, run, class_run, tmp_path):
    out = ["--outdir", tmp_path]
    found = sgan("edit", "find", "--model", run, "--method", "codes", "--num", "100", *out)
    assert found.stdout.strip().endswith("directions-codes.npz") and "code=1" in found.stdout
    directions = ["--directions", tmp_path / "directions-codes.npz"]
    sgan("edit", "show", "--model", run, *directions, "--direction", "code=1,z0", "--seeds", "0,1", *out)
    assert {p.name for p in tmp_path.glob("strip*")} == {"strip01-code_1.png", "strip03-z0.png"}
    for words, *arguments in (
        ("trained without codes", "--model", class_run),
        ("--count has no effect", "--model", run, "--count", "2"),
        ("--class has no effect", "--model", run, "--class", "2"),
    ):
        result = sgan("edit", "find", "--method", "codes", *arguments, *out, code=None)
        assert words in result.stderr


def test_projection_and_an_encoder(sgan, run, tmp_path):
    sgan("generate", "--model", run, "--seeds", "1", "--outdir", tmp_path)
    quick = ["--steps", "2", "--loss", "pixel", "-q"]
    sgan("project", tmp_path / "seed0001.png", "--model", run, *quick, "--outdir", tmp_path / "p")
    short = ["--kimg", "0.008", "--snap", "0.008", "--batch", "8", "--held-out", "4", "-q"]
    encoder = sgan("encoder", "fit", "--model", run, "--runs", tmp_path / "runs", *short).stdout.strip()
    arguments = ["--model", run, "--encoder", encoder, "--outdir", tmp_path / "e", "-q"]
    sgan("encode", tmp_path / "seed0001.png", *arguments)
    for path in (tmp_path / "p" / "projected.npz", tmp_path / "e" / "encoded.npz"):
        with np.load(path) as f:
            assert f["w"].shape[0] == 1 and np.isfinite(f["w"]).all()


def test_fine_tuning_goes_on_with_the_codes(run, rgb_set):
    snapshot = str(latest_snapshot(run))
    plan = plan_new_run(None, None, snapshot)
    assert (plan.config.info, plan.config.info_continuous) == (3, 2)
    assert plan.config.generator.c_dim == plan.config.discriminator.c_dim == 3 and plan.config.data.c_dim == 0
    other = plan_new_run(str(rgb_set), None, snapshot, cond="hat").config
    assert (other.info, other.info_continuous, other.discriminator.codes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--info", "4", "--cond", "hat"], "--info and --cond cannot be combined"),
        (["--info-weight", "2"], "--info-weight has no effect without codes"),
        (["--info", "1"], "--info"),
    ],
)
def test_bad_options(sgan, rgb_set, tmp_path, arguments, words):
    result = sgan("train", "--data", rgb_set, "--runs", tmp_path / "runs", *TINY, *arguments, code=None)
    assert words in result.stderr
    assert not (tmp_path / "runs").exists()


def test_codes_of_a_resumed_run_are_fixed(sgan, run):
    result = sgan("train", "--resume", run, "--info", "5", code=None)
    assert "--info cannot be changed" in result.stderr
