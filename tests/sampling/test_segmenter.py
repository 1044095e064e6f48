"""Segmenters: logits as of a classifier of all layers' features, in every family; files, and what is refused."""

import functools
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.sampling.segmenter import Linear, class_maps, feature_layers, features_at, inner, split_by_layer
from stylegan_cli.sampling.segmenter_files import (
    SEGMENTER_FILE,
    SegmenterInfo,
    colored,
    find_segmenter,
    load_segmenter,
    save_segmenter,
)
from stylegan_cli.snapshot import SEGMENTER_FORMAT

FAMILIES = {"stylegan": StyleGANConfig, "stylegan2": StyleGAN2Config, "stylegan3": StyleGAN3Config}
SIZE = 24, 48
CLASSES = ("#000000", "#00ff00", "#ffffff")


def build(family="stylegan2"):
    torch.manual_seed(0)
    sizes = {"channels": 4, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
    return build_generator(FAMILIES[family](*SIZE, **sizes)).requires_grad_(False)


@pytest.fixture(params=FAMILIES)
def G(request):
    return build(request.param)


def latents(G, count=2):
    return torch.randn(count, G.num_ws, G.synthesis.w_dim, generator=torch.Generator().manual_seed(3))


def enlarged(G, ws):
    """The features of all layers, each enlarged to the image."""
    maps = {}
    G.synthesis(ws, features={r.name: functools.partial(maps.__setitem__, r.name) for r in G.layers})
    rows = feature_layers(G.synthesis)
    assert len(rows) > 3 and all(row.kind == "conv" for row in rows)
    parts = [F.interpolate(inner(maps[r.name], r), SIZE, mode="bilinear", align_corners=False) for r in rows]
    return torch.cat(parts, 1)


def random_linear(G, classes=3):
    channels = sum(row.channels for row in feature_layers(G.synthesis))
    weight = torch.randn(classes, channels, generator=torch.Generator().manual_seed(5))
    return weight, Linear(split_by_layer(G.synthesis, weight), torch.tensor([0.5, -1.0, 0.0]))


def test_logits_are_those_of_a_classifier_of_enlarged_features(G):
    ws, (weight, linear) = latents(G), random_linear(G)
    images, logits = linear.read(G.synthesis, ws)
    expected = torch.einsum("kc,nchw->nkhw", weight, enlarged(G, ws)) + linear.bias[:, None, None]
    assert logits.shape == (2, 3, *SIZE) and expected.std() > 0.1
    assert torch.allclose(logits, expected, atol=2e-4 * float(expected.abs().max()))
    assert torch.equal(images, G.synthesis(ws))


def test_features_at_pixels(G):
    ws = latents(G)
    points = torch.tensor([[0, 47, 48 * 23, 48 * 24 - 1, 500], [7, 300, 301, 349, 700]])
    found = features_at(G.synthesis, ws, points, SIZE)
    expected = enlarged(G, ws).flatten(2)
    for i in range(2):
        assert torch.allclose(found[i], expected[i, :, points[i]].T, atol=1e-4)


def test_logits_have_gradients(G):
    ws, (_, linear) = latents(G).requires_grad_(True), random_linear(G)
    _, logits = linear.read(G.synthesis, ws)
    (gradient,) = torch.autograd.grad(logits[:, 0].mean(), ws)
    used = {row.w_index for row in feature_layers(G.synthesis)}
    assert all(gradient[:, i].abs().max() > 0 for i in used)


def test_options_reach_the_synthesis(G):
    ws, (_, linear) = latents(G), random_linear(G)
    for row in G.noise_layers:
        G.get_submodule(row.name).noise_strength.fill_(1.0)
    options = {"noise": "none"} if G.noise_layers else {"transform": torch.diag(torch.tensor([-1.0, -1.0, 1.0]))}
    images, logits = linear.read(G.synthesis, ws, **options)
    assert torch.equal(images, G.synthesis(ws, **options))
    plain = linear.read(G.synthesis, ws)[1]
    assert (logits - plain).abs().mean() > 0.05 * plain.std()
    points = torch.tensor([[0, 500]]).expand(2, -1)
    moved, still = (features_at(G.synthesis, ws, points, SIZE, **given) for given in (options, {}))
    assert (moved - still).abs().mean() > 0.05 * still.std()


def test_class_maps():
    logits = torch.zeros(1, 64, 1, 3)
    logits[0, 63, 0, 1], logits[0, 7, 0, 2] = 1, 2
    assert class_maps(logits).tolist() == [[[0, 63, 7]]] and class_maps(logits).dtype == torch.uint8
    assert colored(class_maps(logits) % 3, CLASSES)[0, :, 0].T.tolist() == [[0, 0, 0], [0, 0, 0], [0, 255, 0]]


# ---------------------------------------------------------------------------------------------- files


@pytest.fixture
def saved(tmp_path):
    G, path = build(), tmp_path / "s.safetensors"
    _, linear = random_linear(G)
    info = SegmenterInfo(CLASSES, "f" * 16, "nearest", 3, {"mean": 0.5, "#000000": None}, {"model": "m", "run": "r"})
    save_segmenter(path, linear, info)
    return G, linear, info, path


def test_a_file_returns_what_was_saved(saved):
    G, linear, info, path = saved
    read = load_segmenter(path, G, "f" * 16)
    assert read.info == info == SEGMENTER_FILE.read_info(path)
    assert read.linear.weights.keys() == linear.weights.keys()
    assert all(torch.equal(read.linear.weights[name], w) for name, w in linear.weights.items())
    assert torch.equal(read.linear.bias, linear.bias)


def test_colors():
    maps = torch.tensor([[[0, 1], [2, -1]]])
    assert colored(maps, CLASSES)[0].flatten(1).T.tolist() == [[0, 0, 0], [0, 255, 0], [255, 255, 255], [128, 128, 128]]


def rewrite(path, tensors=None, header=None, **info):
    with safetensors.safe_open(path, "pt") as f:
        old = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        about = json.loads(f.metadata()["info"])
    header = header or {"format": SEGMENTER_FORMAT, "info": json.dumps(about | info)}
    safetensors.torch.save_file(old | (tensors or {}), path, metadata=header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {"bias": torch.tensor([0.0, float("nan"), 0.0])}}, "not finite, for example in bias"),
        ({"tensors": {"bias": torch.zeros(4)}}, "does not fit this model"),
        ({"tensors": {"weight.synthesis.b3.conv9": torch.zeros(3, 8)}}, "does not fit this model"),
        ({"header": {"format": "other"}}, "but not a segmenter"),
        ({"header": {"format": SEGMENTER_FORMAT, "info": "[" * 100_000}}, "invalid header"),
        ({"header": {"format": SEGMENTER_FORMAT}}, "invalid header"),
        ({"classes": ["#000000"]}, "2 to 64 sorted colors"),
        ({"classes": ["#00ff00", "#000000", "#ffffff"]}, "2 to 64 sorted colors"),
        ({"classes": ["#000000", "red", "#ffffff"]}, "2 to 64 sorted colors"),
        ({"model": "e" * 16}, "belongs to the model with fingerprint"),
    ],
)
def test_what_is_refused(saved, change, message):
    G, *_, path = saved
    rewrite(path, **change)
    with pytest.raises(SganError, match=message):
        load_segmenter(path, G, "f" * 16)


def test_a_cut_file(saved):
    G, *_, path = saved
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SganError, match="or it is damaged"):
        load_segmenter(path, G, "f" * 16)
    with pytest.raises(SganError, match="does not exist"):
        load_segmenter(path.with_name("none"), G, "f" * 16)


def test_how_to_make_a_missing_one(tmp_path, monkeypatch):
    """The command to copy is for the same model."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SganError, match="There is no segmenter") as caught:
        find_segmenter(None, Path("runs/00000-a/m.safetensors"))
    assert "sgan segment fit --annotated DIR --model runs/00000-a/m.safetensors," in caught.value.hint
    assert find_segmenter("own.safetensors", Path("m.safetensors")) == Path("own.safetensors")
