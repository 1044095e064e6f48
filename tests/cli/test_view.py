"""Models whose input can be translated and rotated, in every command that makes images, and other models."""

import json

import numpy as np
import pytest
from PIL import Image

from stylegan_cli.data.images import read_metadata
from stylegan_cli.snapshot import SnapshotInfo, save_snapshot


@pytest.fixture(scope="module")
def model(moving_generator, tmp_path_factory):
    G = moving_generator(16, 256, 16)
    path = tmp_path_factory.mktemp("view") / "model.safetensors"
    save_snapshot(path, G, None, SnapshotInfo(G.config))
    return path


def test_generate_and_mix(sgan, model, tmp_path):
    sgan("generate", "--model", model, "--seeds", "1", "--outdir", tmp_path / "still", "-q")
    view = ("--rotate", "90", "--translate", "0.25,-0.125")
    sgan("generate", "--model", model, "--seeds", "1", *view, "--outdir", tmp_path / "moved", "-q")
    still, moved = tmp_path / "still" / "seed0001.png", tmp_path / "moved" / "seed0001.png"
    assert Image.open(still).tobytes() != Image.open(moved).tobytes()
    metadata = read_metadata(moved)
    assert (metadata["translate"], metadata["rotate"]) == ("(0.25, -0.125)", "90.0")
    assert not {"translate", "rotate"} & read_metadata(still).keys()
    sgan("mix", "--model", model, "--rows", "0", "--cols", "1", *view, "--outdir", tmp_path / "mix", "-q")
    assert (tmp_path / "mix" / "mix.png").is_file()


def test_interpolate(sgan, model, tmp_path):
    line = ("interpolate", "--model", model, "--seeds", "0-1", "--frames", "4", "-q")
    for name, options in {
        "a": (),
        "b": ("--lock-view",),
        "c": ("--rotate", "360"),
        "d": ("--translate", "1,0"),
    }.items():
        sgan(*line, *options, "--out", tmp_path / f"{name}.webp")
    assert len({(tmp_path / f"{name}.webp").read_bytes() for name in "abcd"}) == 4


def test_project_records_a_constant_view(sgan, model, tmp_path):
    sgan("generate", "--model", model, "--seeds", "1", "--outdir", tmp_path, "-q")
    line = ("project", tmp_path / "seed0001.png", "--model", model, "--loss", "pixel", "--steps", "3", "-q")
    for view in ("optimize", "const"):
        sgan(*line, "--view", view, "--candidates", "4", "--outdir", tmp_path / view)
        sgan("generate", "--model", model, "--from-w", tmp_path / view / "projected.npz", "--outdir", tmp_path / view)
    assert "view" not in read_metadata(tmp_path / "optimize" / "proj.png")
    assert read_metadata(tmp_path / "const" / "proj.png")["view"] == "const"


def test_edits_leave_the_view_alone_unless_it_is_asked_for_by_number(sgan, model, tmp_path):
    file = tmp_path / "directions.npz"
    line = ("edit", "find", "--model", model, "--method", "sefa", "--count", "2", "--num", "20", "--out", file, "-q")
    for options, layers in (
        ((), list(range(1, 16))),
        (("--layers", "coarse"), [1, 2, 3, 4, 5]),
        (("--layers", "0-1"), [0, 1]),
    ):
        sgan(*line, *options)
        with np.load(file) as f:
            assert f["layers"].tolist() == layers
    line = ("edit", "apply", "--model", model, "--directions", file, "--seeds", "3", "--outdir", tmp_path, "-q")
    for layers, moved in (("coarse", [1, 2, 3, 4, 5]), ("0", [0])):
        sgan(*line, "--layers", layers)
        with np.load(tmp_path / "edited.npz") as f:
            ws = f["w"][0]
        assert np.abs(ws - ws[-1]).max(1).nonzero()[0].tolist() == moved


def test_attribute_and_noise(sgan, model, rgb_set, tmp_path):
    sgan("generate", "--model", model, "--seeds", "1", "--outdir", tmp_path, "-q")
    line = ("attribute", tmp_path / "seed0001.png", "--model", model, "--data", rgb_set, "--loss", "pixel")
    options = ("--steps", "2", "--num", "8", "--outdir", tmp_path, "--json", "-q")
    answer = json.loads(sgan(*line, *options).stdout)
    assert (tmp_path / "attribute.png").is_file() and "seed0001" in json.dumps(answer)
    assert "has no noise inputs" in sgan("noise", "--model", model, "-q", code=1).stderr


def test_model_info_says_which_models_can_be_moved(sgan, model):
    assert "can be translated and rotated" in sgan("model", "info", model).stdout
    facts = json.loads(sgan("model", "info", model, "--json").stdout)
    assert facts["info"]["generator"]["family"] == "stylegan3"


@pytest.mark.parametrize("options", [("--rotate", "9"), ("--translate", "0,0"), ("--lock-view",)])
def test_other_models_are_refused(sgan, tmp_path, options):
    line = ("interpolate", "--frames", "2", "--out", tmp_path / "a.gif")
    result = sgan(*line, *options, code=1)
    assert f"{options[0]} needs a model with an input transform" in result.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1", "1,2,3", "a,b", "nan,0", ""])
def test_bad_values(sgan, value):
    assert "is not a pair of numbers. Use X,Y" in sgan("generate", "--translate", value, code=2).stderr


def test_learning_rates(sgan, tmp_path):
    line = ("train", "--cfg", "stylegan3-t", "--size", "16", "--cbase", "128", "--batch", "4", "--dry-run")
    for options, rates in (((), (0.0025, 0.002)), (("--lr", "0.001"), (0.001, None)), (("--dlr", "1"), (0.0025, 1.0))):
        text = sgan(*line, "--runs", tmp_path, *options).stdout
        config = json.JSONDecoder().raw_decode(text)[0]
        assert (config["lr"], config["d_lr"]) == rates
    assert "--dlr" in sgan(*line, "--dlr", "0", code=2).stderr
