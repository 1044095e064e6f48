"""`sgan model blend`: models that fit together, what is written, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.session import BlendRequest, blend_models
from stylegan_cli.snapshot import SnapshotInfo, load_snapshot, read_info, save_snapshot

FINE_TUNE = ["--batch", "8", "--kimg", "0.008", "--snap", "0.008", "-q"]


@pytest.fixture(scope="module")
def tuned(sgan, tiny_run, tmp_path_factory):
    """Two models that were fine-tuned from the one of `tiny_run`."""
    runs = tmp_path_factory.mktemp("tuned")
    seeds = ("1", "2")
    line = ["train", "--resume", latest_snapshot(tiny_run), "--runs", runs, *FINE_TUNE]
    return [Path(sgan(*line, "--seed", seed).stdout.strip()) for seed in seeds]


def test_a_blend_is_a_model(sgan, tuned, tmp_path):
    out = tmp_path / "blend.safetensors"
    result = sgan("model", "blend", *tuned, "--layers", "coarse", "--out", out)
    assert result.stdout.strip() == str(out) and "layers coarse from snapshot" in result.stderr
    a, b, blended = (load_snapshot(p) for p in (*map(latest_snapshot, tuned), out))
    z = torch.randn(2, 512)
    assert torch.equal(blended.G.mapping(z), a.G.mapping(z))
    own, first, second = (x.G.state_dict() for x in (blended, a, b))
    assert torch.equal(own["synthesis.b4.conv1.weight"], second["synthesis.b4.conv1.weight"])
    assert torch.equal(own["synthesis.b32.conv1.weight"], first["synthesis.b32.conv1.weight"])
    assert all(torch.equal(x, a.D.state_dict()[name]) for name, x in blended.D.state_dict().items())
    info = blended.info
    assert a.fingerprint in info.origin and b.fingerprint in info.origin and "1 of layers coarse" in info.origin
    assert {a.fingerprint, a.info.run, b.fingerprint, b.info.run} <= set(info.origins) and not info.run
    assert info.data == a.info.data and info.metrics == {}
    assert "layers coarse" in sgan("model", "info", out).stdout
    sgan("generate", "--model", out, "--seeds", "0", "--outdir", tmp_path, "-q")
    again = json.loads(sgan("model", "blend", out, tuned[1], "--out", tmp_path / "two.safetensors", "--json").stdout)
    assert again["file"] == str(tmp_path / "two.safetensors")  # a blend is related to its parts


def test_without_layers_all_weights_are_interpolated(sgan, tuned, tiny_run, tmp_path):
    """A model and its fine-tuned copy are related as well."""
    out = tmp_path / "half.safetensors"
    sgan("model", "blend", tiny_run, tuned[0], "--out", out)
    a, b, blended = (load_snapshot(p).G for p in (latest_snapshot(tiny_run), latest_snapshot(tuned[0]), out))
    for name, tensor in blended.state_dict().items():
        middle = torch.lerp(a.state_dict()[name], b.state_dict()[name], 0.5)
        assert torch.allclose(tensor, middle, atol=1e-6), name
    sgan("model", "blend", tiny_run, tuned[0], "--weight", "0", "--out", out)
    assert load_snapshot(out).fingerprint == load_snapshot(latest_snapshot(tiny_run)).fingerprint


def test_levels(sgan, tuned, tmp_path):
    out = tmp_path / "level.safetensors"
    sgan("model", "blend", *tuned, "--level", "8", "--smooth", "0.5", "--weight", "0.8", "--out", out)
    assert "0.8 of levels up to 8" in read_info(out).origin and "smooth 0.5" in read_info(out).origin


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--level", "64"], "--level 64 divides no layers of this model"),
        (["--layers", "coarse", "--level", "8"], "--layers and --level both choose layers"),
        (["--smooth", "1"], "--smooth has no effect on all layers"),
        (["--layers", "0-40"], "no style"),
        (["--weight", "2"], "2.0 is not in the range"),
    ],
)
def test_bad_options(sgan, tuned, tmp_path, arguments, words):
    out = tmp_path / "out" / "x.safetensors"
    assert words in sgan("model", "blend", *tuned, *arguments, "--out", out, code=None).stderr
    assert not out.parent.exists()


def save(path, height=16, channel_max=8, seed=0, c_dim=0, **info):
    torch.manual_seed(seed)
    config = StyleGAN2Config(height, height, c_dim=c_dim, channel_base=64, channel_max=channel_max, w_dim=8, z_dim=8)
    save_snapshot(path, build_generator(config), None, SnapshotInfo(config, **info))
    return path


def test_other_classes(sgan, tmp_path):
    """Refused where both models name their classes and one differs; the names of the first are kept."""

    def model(name, classes):
        data = DataSpec("a.zip", "0" * 64, 9, 16, 16, 3, 16, 16, label="kind", classes=classes)
        return save(tmp_path / f"{name}.safetensors", seed=len(name), c_dim=2, run="1", data=data)

    animals, others = model("a", ("cat", "dog")), model("bb", ("cat", "fox"))
    out = tmp_path / "out" / "blend.safetensors"
    stderr = sgan("model", "blend", animals, others, "--out", out, code=1).stderr
    assert "class 1 is 'dog' in one and 'fox' in the other" in stderr and "--any-model" in stderr
    assert not out.parent.exists()
    sgan("model", "blend", animals, others, "--out", out, "--any-model")
    assert load_snapshot(out).G.label_space.names == ("cat", "dog")
    same, numbered = model("ccc", ("cat", "dog")), model("dddd", ("0", "1"))
    unnamed = save(tmp_path / "e.safetensors", seed=5, c_dim=2, run="1")
    for other in (same, numbered, unnamed):
        sgan("model", "blend", animals, other, "--out", out)
        assert load_snapshot(out).G.label_space.names == ("cat", "dog")


def test_models_that_share_no_ancestor(sgan, tmp_path):
    a, b = save(tmp_path / "a.safetensors", run="1"), save(tmp_path / "b.safetensors", seed=1, run="2")
    out = tmp_path / "out.safetensors"
    stderr = sgan("model", "blend", a, b, "--out", out, code=None).stderr
    assert "share no ancestor" in stderr and "--any-model" in stderr and not out.exists()
    sgan("model", "blend", a, b, "--out", out, "--any-model")
    assert load_snapshot(out).D is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"run": "1"}, {"run": "1"}),
        ({"run": "1"}, {"run": "2", "origins": ("1",)}),
        ({"run": "1", "origins": ("0",)}, {"run": "2", "origins": ("0",)}),
    ],
)
def test_models_that_share_one(tmp_path, one, other):
    a, b = (load_snapshot(save(tmp_path / f"{i}.safetensors", seed=i, **x)) for i, x in enumerate((one, other)))
    blend_models(a, b, BlendRequest(layers="coarse"))
    stranger = dataclasses.replace(b, info=dataclasses.replace(b.info, run="9", origins=("8",)))
    with pytest.raises(Exception, match="share no ancestor"):
        blend_models(a, stranger, BlendRequest())


def test_other_shapes_and_the_same_model(sgan, tmp_path):
    a = save(tmp_path / "a.safetensors", run="1")
    for name, words, options in (
        ("size", "height 16, 32", {"height": 32}),
        ("width", "channel_max 8, 4", {"channel_max": 4}),
    ):
        b = save(tmp_path / f"{name}.safetensors", run="1", **options)
        assert words in sgan("model", "blend", a, b, "--out", tmp_path / "x", code=None).stderr
    assert "the same weights" in sgan("model", "blend", a, a, code=None).stderr
    b = save(tmp_path / "b.safetensors", run="1", seed=1)
    assert "one of the models" in sgan("model", "blend", a, b, "--out", b, code=None).stderr
