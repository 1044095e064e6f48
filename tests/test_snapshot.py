"""Snapshots: a model is loaded as it was saved, and any other file is refused in one sentence."""

import copy
import dataclasses
import json
import pickle

import pytest
import safetensors.torch
import torch

import stylegan_cli
from stylegan_cli.config import to_json
from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.errors import SganError
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.snapshot import SnapshotInfo, fingerprint, load_snapshot, read_info, save_snapshot

SPEC = DataSpec("a.zip", "abc", 40, 24, 48, 4, 24, 48, mirror=True, label="hat", classes=("flat", "tall"))


@pytest.fixture(scope="module")
def model():
    """G, D, info"""
    torch.manual_seed(0)
    small = {"channels": 4, "c_dim": 2, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}
    g = StyleGAN2Config(24, 48, z_dim=8, w_dim=8, **small)
    d = LevelsDiscriminatorConfig(24, 48, **small)
    G, D = build_generator(g), build_discriminator(d)
    G.mapping.w_avg.normal_()
    info = SnapshotInfo(g, d, SPEC, kimg=1.25, metrics={"fid50k_full": 3.5}, origin="a test")
    return G, D, info


@pytest.fixture
def saved(model, tmp_path):
    save_snapshot(tmp_path / "a.safetensors", *model)
    return tmp_path / "a.safetensors"


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_round_trip(model, saved):
    G, D, info = model
    loaded = load_snapshot(saved)
    assert same(loaded.G, G) and same(loaded.D, D)
    assert loaded.info == read_info(saved) == info
    assert loaded.info.version == stylegan_cli.__version__
    assert loaded.path == saved and loaded.fingerprint == fingerprint(G)
    assert not loaded.G.training and not any(p.requires_grad for p in loaded.G.parameters())


def test_a_loaded_model_generates_the_same_images(model, saved):
    G, z, c = model[0], torch.randn(2, 8), torch.eye(2)
    with torch.no_grad():
        assert torch.equal(load_snapshot(saved).G(z, c), G(z, c))
        assert torch.equal(stylegan_cli.load(saved)(z, c, truncation_psi=0.5), G(z, c, truncation_psi=0.5))


def test_the_file_holds_the_tensors_and_the_header(model, saved):
    tensors = safetensors.torch.load_file(saved)
    names = {f"G.{k}" for k in model[0].state_dict()} | {f"D.{k}" for k in model[1].state_dict()}
    assert tensors.keys() == names
    with safetensors.safe_open(saved, framework="pt") as f:
        assert f.metadata()["format"] == "stylegan_cli/1"
        assert json.loads(f.metadata()["info"])["kimg"] == 1.25


def test_without_a_discriminator(model, tmp_path):
    G, _, info = model
    save_snapshot(tmp_path / "g.safetensors", G, None, info)
    loaded = load_snapshot(tmp_path / "g.safetensors")
    assert loaded.D is None and loaded.info.discriminator is None and same(loaded.G, G)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_half_precision(model, saved, tmp_path, dtype):
    G, D, info = model
    half = tmp_path / "half.safetensors"
    save_snapshot(half, G, D, info, dtype=dtype)
    assert half.stat().st_size < 0.7 * saved.stat().st_size
    loaded = load_snapshot(half)
    for (name, actual), original in zip(loaded.G.state_dict().items(), G.state_dict().values()):
        assert actual.dtype == torch.float32 and torch.equal(actual, original.to(dtype).float()), name


def test_saving_does_not_change_the_model(model, tmp_path):
    G, D, info = model
    before = {k: v.clone() for k, v in G.state_dict().items()}
    save_snapshot(tmp_path / "half.safetensors", G, D, info, dtype=torch.float16)
    assert all(torch.equal(before[k], v) for k, v in G.state_dict().items())


def test_the_fingerprint_depends_only_on_the_weights(model, saved, tmp_path):
    G, D, info = model
    name = fingerprint(G)
    assert len(name) == 16 and int(name, 16) >= 0
    other_format = copy.deepcopy(G).to(memory_format=torch.contiguous_format)
    save_snapshot(tmp_path / "b.safetensors", other_format, None, info)
    assert load_snapshot(tmp_path / "b.safetensors").fingerprint == load_snapshot(saved).fingerprint == name
    other = load_snapshot(saved).G
    other.synthesis.b4.const[0, 0, 0] += 1e-3
    assert fingerprint(other) != name


def test_a_known_fingerprint():
    """Names of weights must not change: the fingerprint, which is stored in images, depends on them."""
    config = StyleGAN2Config(8, 8, z_dim=4, w_dim=4, channel_base=32, channel_max=4, mapping_layers=1)
    G = build_generator(config)
    for k, t in enumerate(G.state_dict().values()):
        t.copy_((torch.arange(t.numel()) * 0.125 + k).reshape(t.shape))
    assert fingerprint(G) == "e12a4d5265284548"


# --------------------------------------------------------------------------------------- invalid files


def error_message(path):
    with pytest.raises(SganError) as e:
        load_snapshot(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(SganError):
        stylegan_cli.load(path)
    return str(e.value)


def test_a_missing_file(tmp_path):
    assert "does not exist" in error_message(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 8, 200, 0.5, 0.999])
def test_a_truncated_file(saved, tmp_path, keep):
    data = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    assert "truncated" in error_message(cut)
    with pytest.raises(SganError):
        read_info(cut)


def test_a_file_with_extra_bytes(saved, tmp_path):
    (tmp_path / "long.safetensors").write_bytes(saved.read_bytes() + b"more")
    error_message(tmp_path / "long.safetensors")


def test_a_pickle(tmp_path):
    """It is refused without being unpickled, which would create a file."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"G_ema": Trap()}))
    assert "not a snapshot" in error_message(tmp_path / "network.pkl")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "network.pt")
    assert "not a snapshot" in error_message(tmp_path / "network.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"format": "stylegan_cli/99", "info": "{}"}])
def test_a_safetensors_file_of_another_program(tmp_path, header):
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors", header)
    assert "not a stylegan_cli snapshot" in error_message(tmp_path / "other.safetensors")


def rewrite(saved, info, tensors=None):
    tensors = safetensors.torch.load_file(saved) if tensors is None else tensors
    header = {"format": "stylegan_cli/1", "info": info if isinstance(info, str) else json.dumps(info)}
    safetensors.torch.save_file(tensors, saved, header)
    return saved


def test_tensors_that_do_not_match_the_configuration(model, saved):
    info, weights = to_json(model[2]), safetensors.torch.load_file(saved)
    name = "G.synthesis.b8.conv0.weight"
    missing = {k: v for k, v in weights.items() if k != name}
    for tensors in (missing, weights | {name: torch.zeros(3)}, weights | {"G.extra": torch.zeros(1)}):
        message = error_message(rewrite(saved, info, tensors))
        assert "does not match its own configuration" in message
        assert "G.extra" in message or name in message
    broken = {k: v for k, v in weights.items() if not k.startswith("D.b8")}
    assert "D.b8" in error_message(rewrite(saved, info, broken))


def test_an_invalid_header(model, saved):
    info = to_json(model[2])
    bad = ["{", "[]", "7", {}, {"generator": 3}, {k: v for k, v in info.items() if k != "generator"}]
    bad.append(info | {"from the future": 1})
    bad.append(info | {"generator": info["generator"] | {"height": "x"}})
    bad.append(info | {"generator": info["generator"] | {"height": 31}})
    bad.append(info | {"generator": info["generator"] | {"architecture": "vit"}})
    for content in bad:
        error_message(rewrite(saved, content))


def test_the_file_extension_does_not_matter(saved):
    other = saved.rename(saved.with_suffix(".bin"))
    assert load_snapshot(other).info.kimg == 1.25


def test_a_failed_save_keeps_the_old_file(model, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(SganError, match="No space left"):
        save_snapshot(saved, model[0], None, dataclasses.replace(model[2], kimg=2.0))
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    "field",
    [
        {"w_dim": 2_000_000},
        {"z_dim": 10**9},
        {"mapping_layers": 200_000},
        {"fir": []},
        {"fir": [1, -1]},
        {"half_levels": -3},
    ],
)
def test_false_headers_allocate_nothing(model, tmp_path, field):
    G, _, info = model
    header = json.loads(json.dumps(to_json(dataclasses.replace(info, discriminator=None))))
    header["generator"] |= field
    tensors = {f"G.{name}": t.contiguous() for name, t in G.state_dict().items()}
    metadata = {"format": "stylegan_cli/1", "info": json.dumps(header)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(SganError):
        load_snapshot(tmp_path / "a.safetensors")


def test_non_finite_weights(model, tmp_path):
    G, _, info = model
    broken = build_generator(info.generator)
    broken.load_state_dict(G.state_dict())
    broken.mapping.w_avg[0] = torch.nan
    save_snapshot(tmp_path / "a.safetensors", broken, None, info)
    with pytest.raises(SganError, match="not finite"):
        load_snapshot(tmp_path / "a.safetensors")
