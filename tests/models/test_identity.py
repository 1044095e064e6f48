"""Networks that tell persons apart: those of face-api and of ArcFace, and files that are neither."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.detectors.face import FaceNetwork, load_face_network, manifest_of
from stylegan_cli.detectors.frozen import load_weights
from stylegan_cli.errors import SganError
from stylegan_cli.models.encoders import identity
from stylegan_cli.models.encoders.identity import load_identity
from stylegan_cli.models.encoders.irse50 import ArcFace, IRSEConfig
from stylegan_cli.sampling.counter import uniform

# Means over 16 channels each of what face-api 1.7.15 computes for `make_images()`.
VECTORS = [
    [-0.0041, -0.0678, 0.0058, -0.0083, 0.0210, 0.0043, -0.0169, 0.0269],
    [0.0047, -0.0728, 0.0082, -0.0037, 0.0204, 0.0033, -0.0140, 0.0171],
]


def make_images(num=2, size=150):
    """Random images [N, 3, size, size] of coarse blocks and fine noise, in [-1, 1]."""
    coarse = uniform(6, "blots", torch.arange(num), (3, 4, 4))
    fine = uniform(6, "grain", torch.arange(num), (3, size, size))
    return (F.interpolate(coarse, (size, size)) * 200 + fine * 55).to(torch.uint8).float() / 127.5 - 1


@pytest.fixture
def face(face_api, tmp_path):
    """A copy of the weights, with the manifest beside it."""
    for path in face_api.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / "face_recognition_model.bin"


def test_it_agrees_with_face_api(face):
    vectors = load_face_network(face, manifest_of(face))(make_images())
    assert vectors.shape == (2, 128)
    torch.testing.assert_close(vectors.view(2, 8, 16).mean(2), torch.tensor(VECTORS), rtol=0, atol=6e-5)


def test_the_downloaded_weights_are_those_of_the_file(face, monkeypatch):
    monkeypatch.setenv("SGAN_DETECTORS", str(face.parent))
    images = make_images(1, 256)
    named, file = load_identity("face"), load_identity(str(face))
    assert named.name == file.name == "identity-b413e420"
    assert torch.equal(named.features(images)[0], file.features(images)[0])


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 96, 64), (4, 80, 80), (3, 300, 300)], ids=str)
def test_any_image(face, shape):
    """Its own distance is 0; a step along the gradient makes two images more alike."""
    loss = load_identity(str(face))
    a, b = (uniform(1, name, torch.arange(2), shape) * 2 - 1 for name in "ab")
    target = loss.features(b)
    assert loss.distance(target, target).abs().max() < 1e-5
    x = a.clone().requires_grad_(True)
    before = loss.distance(loss.features(x), target)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    length = gradient.flatten(1).norm(dim=1)[:, None, None, None]
    after = loss.distance(loss.features(a - 0.1 * gradient / length), target)
    assert before.shape == (2,) and (after < before).all() and (length > 0).all()


def test_only_the_face_is_compared(face):
    loss, images = load_identity(str(face)), make_images(1, 256)
    outside, inside = images.clone(), images.clone()
    outside[:, :, :77] = outside[:, :, 235:] = outside[:, :, :, :49] = outside[:, :, :, 207:] = 0
    inside[:, :, 140:170, 110:150] = 0
    target = loss.features(images)
    assert loss.distance(loss.features(outside), target) < 1e-5 < loss.distance(loss.features(inside), target)


def test_arcface_is_computed_by_the_definitions_of_its_layers():
    """From tensors with the names of pSp's file, in the crop of pSp."""
    spec = importlib.util.spec_from_file_location("plain", Path(__file__).parents[1] / "interop" / "plain_encoders.py")
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)

    class Case:
        resnet, se, channels, into_w, into_w_plus, pyramid, w_dim, num_ws = False, True, 3, True, False, False, 8, 1

    t = plain.Weights(5)
    t.update(plain.weights(Case))
    t.norm("output_layer.0", plain.WIDTHS[-1])
    t.normal("output_layer.3.weight", 512, 49 * plain.WIDTHS[-1], scale=0.02)
    t.normal("output_layer.3.bias", 512)
    t.norm("output_layer.4", 512)
    with torch.device("meta"):
        network = ArcFace(IRSEConfig(1, widths=plain.WIDTHS))
    load_weights(network, dict(t), Path("x"))
    images = make_images(1, 256)
    x = F.adaptive_avg_pool2d(images[:, :, 35:223, 32:220], 112)
    actual = network(identity._face(images, *identity._ARCFACE))
    x = plain.prelu(t, "input_layer.2", plain.norm(t, "input_layer.1", plain.conv(t, "input_layer.0", x)))
    for i, _, _, stride in plain.stages(Case):
        x = plain.residual_block(t, f"body.{i}", Case, x, stride)
    x = plain.norm(t, "output_layer.0", x).flatten(1) @ t["output_layer.3.weight"].t() + t["output_layer.3.bias"]
    torch.testing.assert_close(actual, plain.norm(t, "output_layer.4", x[:, :, None, None])[:, :, 0, 0])


def test_a_file_of_arcface(tmp_path, monkeypatch):
    """Of few channels, written by torch.save."""
    monkeypatch.setattr(identity, "ArcFace", lambda: ArcFace(IRSEConfig(1, widths=(16, 16, 16, 16))))
    torch.manual_seed(0)
    torch.save(identity.ArcFace().state_dict(), tmp_path / "model_ir_se50.pth")
    loss = load_identity(str(tmp_path / "model_ir_se50.pth"))
    (vectors,) = loss.features(make_images(2, 64))
    assert vectors.shape == (2, 512) and torch.allclose(vectors.norm(dim=1), torch.ones(2)) and loss.unit == 1
    weights = identity.ArcFace().state_dict()
    weights["body.3.res_layer.1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(SganError, match="not finite"):
        load_identity(str(tmp_path / "nan.pth"))


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refused(path):
    with pytest.raises(SganError) as e:
        load_identity(str(path))
    assert "\n" not in str(e.value) and str(path) in str(e.value)
    return f"{e.value} {e.value.hint}"


def test_other_files(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    assert "does not have the weights of ArcFace" in refused(tmp_path / "other.pth")
    assert "model_ir_se50.pth" in refused(tmp_path / "other.pth")
    evil = Evil()
    evil.path = tmp_path / "executed"
    torch.save({"a": evil}, tmp_path / "evil.pth")
    assert "cannot be read as a file of weights" in refused(tmp_path / "evil.pth")
    assert not evil.path.exists()


def write(path, manifest, size=None):
    """Write weights of face-api's network: zeros, with a manifest."""
    network = FaceNetwork()
    total = sum(p.numel() for p in network.parameters()) + 2 * sum(
        m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)
    )
    path.write_bytes(bytes(total if size is None else size))
    manifest_of(path).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


def test_damaged_weights_of_faces(tmp_path):
    from stylegan_cli.detectors.face import _shapes

    path = tmp_path / "a.bin"
    q = {"dtype": "uint8", "scale": 1e-3, "min": -0.1}
    entries = [{"name": n, "shape": list(s), "quantization": q} for n, s in _shapes(FaceNetwork()).items()]
    good = [{"paths": ["a.bin"], "weights": entries}]
    write(path, good)
    assert load_identity(str(path)).features(make_images(1, 64))[0].shape == (1, 128)
    write(path, good, 1000)
    assert "has 1000 bytes instead of" in refused(path)
    write(path, [{"weights": entries[1:]}])
    assert "not those of the network" in refused(path)
    for smallest in (float("nan"), 1e308, "x", None, [1]):
        write(path, [{"weights": [{**entries[0], "quantization": {**q, "min": smallest}}, *entries[1:]]}])
        refused(path)
    for manifest in ("", "{}", "[" * 100_000, "[[1]]", '[{"weights": 5}]', "[{}]", " " * (2 << 20)):
        write(path, manifest)
        refused(path)
    manifest_of(path).unlink()
    with pytest.raises(SganError, match="manifest.json does not exist"):
        load_identity(str(path))


def test_without_the_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    with pytest.raises(SganError, match="face_recognition_model.bin must be downloaded") as e:
        load_identity("face")
    assert "--identity" in e.value.hint and "npm pack" in e.value.hint and "--detector" not in e.value.hint
