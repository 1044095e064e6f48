"""Directions: moving latents, choosing directions, and files."""

import dataclasses

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.directions import (
    Directions,
    load_directions,
    newest_directions,
    sample_w,
    save_directions,
    std_along,
    unit_vectors,
)
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.snapshot import fingerprint


def small_model(seed=0):
    torch.manual_seed(seed)
    config = StyleGAN2Config(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    return build_generator(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def G():
    return small_model()


@pytest.fixture
def directions(G):
    torch.manual_seed(1)
    names = ["hat=tall", "hat=flat", "3", "a,b", "age>40"]
    figures = {"auc": [0.5, 0.6, 0.7, 0.8, 0.9]}
    vectors = unit_vectors(torch.randn(5, 8))
    return Directions(vectors, torch.rand(5) + 1, names, [0, 1, 4], "labels", fingerprint(G), 6.0, figures, {"num": 9})


def test_a_strength_of_0_changes_no_bit(directions):
    ws = torch.randn(3, 6, 8)
    ws[0, 0, 0] = -0.0
    moved = directions.move(ws, 1, 0.0)
    assert moved.numpy().tobytes() == ws.numpy().tobytes() and moved is not ws


def test_other_layers_are_not_changed(directions):
    ws = torch.randn(3, 6, 8)
    before = ws.clone()
    for layers in (None, [2], [0, 5], range(6)):
        moved = directions.move(ws, 1, 2.0, layers)
        chosen = list(directions.layers if layers is None else layers)
        rest = [i for i in range(6) if i not in chosen]
        assert torch.equal(moved[:, rest], ws[:, rest])
        step = moved[:, chosen] - ws[:, chosen]
        assert torch.allclose(step, (directions.vectors[1] * directions.scales[1] * 2).expand_as(step), atol=1e-5)
    assert torch.equal(ws, before)


def test_moving_back(directions):
    ws = torch.randn(3, 6, 8)
    back = directions.move(directions.move(ws, 0, 3.0), 0, -3.0)
    assert torch.allclose(back, ws, atol=1e-5)


def test_choosing_directions(directions):
    assert directions.choose("hat=flat") == [1] and directions.choose("0") == [0]
    assert directions.choose("1-3") == [1, 2, 3] and directions.choose("4,0-1,hat=tall") == [4, 0, 1, 0]
    assert directions.choose("3") == [2], "names take precedence over numbers"
    assert directions.choose("a,b") == [3]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("hat=fla", "Did you mean 'hat=flat'?"),
        ("5", "0-4"),
        ("3-5", "0-4"),
        ("2-1", "0-4"),
        ("", "0-4"),
        ("xyz", "0-4"),
    ],
)
def test_unknown_directions(directions, text, hint):
    with pytest.raises(SganError, match="no direction") as e:
        directions.choose(text)
    assert hint in e.value.hint


def test_a_file_round_trip(G, directions, tmp_path):
    save_directions(tmp_path / "d.npz", directions)
    again = load_directions(tmp_path / "d.npz", G)
    for field in dataclasses.fields(Directions):
        expected, actual = getattr(directions, field.name), getattr(again, field.name)
        assert torch.equal(expected, actual) if field.name in ("vectors", "scales") else expected == actual, field.name
    assert (tmp_path / "d.npz").stat().st_size < 4000
    save_directions(tmp_path / "again.npz", again)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "d.npz").read_bytes()


def test_a_file_of_another_model_is_rejected(directions, tmp_path):
    save_directions(tmp_path / "d.npz", dataclasses.replace(directions, settings={"model": "runs/1"}))
    with pytest.raises(SganError, match="fingerprint") as e:
        load_directions(tmp_path / "d.npz", small_model(1))
    assert "runs/1" in e.value.hint


INVALID = {
    "too few names": {"names": ["a", "b"]},
    "no names": {"names": [], "vectors": torch.zeros(0, 8), "scales": torch.zeros(0), "figures": {}},
    "vectors of one dimension": {"vectors": torch.ones(5)},
    "vectors not of unit length": {"vectors": torch.ones(5, 8)},
    "vectors of NaN": {"vectors": torch.full((5, 8), torch.nan)},
    "zero scales": {"scales": torch.zeros(5)},
    "infinite scales": {"scales": torch.full((5,), torch.inf)},
    "no layers": {"layers": []},
    "layers out of range": {"layers": [0, 6]},
    "negative layers": {"layers": [-1]},
    "too few figures": {"figures": {"auc": [0.5]}},
    "zero strength": {"strength": 0.0},
    "wrong w_dim": {"vectors": unit_vectors(torch.ones(5, 7))},
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_inconsistent_files(G, directions, tmp_path, change):
    save_directions(tmp_path / "d.npz", dataclasses.replace(directions, **change))
    with pytest.raises(SganError):
        load_directions(tmp_path / "d.npz", G)


def test_files_that_are_not_directions(G, directions, tmp_path):
    path = tmp_path / "d.npz"
    with pytest.raises(SganError, match="does not exist"):
        load_directions(path, G)
    save_directions(path, directions)
    content = dict(np.load(path))
    valid = path.read_bytes()
    for invalid in (b"", b"hello", valid[:300], valid[:-30]):
        path.write_bytes(invalid)
        with pytest.raises(SganError, match="not a file of directions"):
            load_directions(path, G)
    pickled = {"vectors": np.array([{}], dtype=object)}
    for change in ({"settings": "[]"}, {"settings": "{"}, {"names": [1, 2]}, {"vectors": ["x"]}, pickled):
        np.savez(path, **{**content, **change})
        with pytest.raises(SganError, match="not a file of directions"):
            load_directions(path, G)
    for name in content:
        if not name.startswith("figure."):
            np.savez(path, **{k: v for k, v in content.items() if k != name})
            with pytest.raises(SganError, match="not a file of directions"):
                load_directions(path, G)


def test_newest_file(G, directions, tmp_path):
    with pytest.raises(SganError, match="no directions") as e:
        newest_directions(tmp_path)
    assert "sgan edit find" in e.value.hint
    for name in ("directions-pca.npz", "directions-labels.npz", "other.npz"):
        save_directions(tmp_path / name, directions)
    assert newest_directions(tmp_path).name == "directions-labels.npz"


def test_samples_are_mapped_seeds(G, monkeypatch):
    w = sample_w(G, range(10))
    assert w.shape == (10, 8) and w.dtype == torch.float64
    assert torch.equal(w, map_seeds(G, range(10), SamplingOptions())[:, 3].double())
    monkeypatch.setattr("stylegan_cli.inversion.directions._BATCH", 3)
    assert torch.allclose(sample_w(G, range(10)), w, atol=1e-6)


def test_std_along(G):
    w = torch.randn(4000, 8, dtype=torch.float64) * torch.arange(1.0, 9)
    assert torch.allclose(std_along(w, torch.eye(8)), torch.arange(1.0, 9), rtol=0.05)
