"""The search of style transfer: what it minimizes, and that it can be stopped."""

import pytest
import torch
from torch import nn

from stylegan_cli.detectors import vgg
from stylegan_cli.detectors.style import StyleNetwork, content_distance, style_distance
from stylegan_cli.inversion.stylize import stylize


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    layers = vgg.convolutions().requires_grad_(False)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return StyleNetwork(layers, "random")


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(1)
    return torch.rand(1, 3, 32, 40) - 0.9, torch.rand(1, 3, 36, 32) * 2 - 1


def total(network, image, content, style, weight):
    features, grams = network(image)
    target, wanted = network(content)[0], network(style)[1]
    return (content_distance(features, target) + weight * style_distance(grams, wanted)).item()


def test_it_minimizes_the_sum(network, pair):
    """In parts of at most ten steps; the same every time."""
    done = []
    found, interrupted = stylize(network, *pair, weight=3, steps=15, progress=lambda *x: done.append(x[1:]))
    assert done == [(0, 15), (10, 15), (15, 15)] and not interrupted
    assert found.shape == pair[0].shape and found.abs().max() <= 1
    assert total(network, found, *pair, 3) < 0.5 * total(network, pair[0], *pair, 3)
    assert torch.equal(found, stylize(network, *pair, weight=3, steps=15)[0])


def test_the_weight(network, pair):
    """More of it is nearer to the style and farther from the content; none changes nothing."""
    few, much = (stylize(network, *pair, weight=w, steps=20)[0] for w in (0.1, 100))
    grams, target = network(pair[1])[1], network(pair[0])[0]
    assert style_distance(network(much)[1], grams) < style_distance(network(few)[1], grams)
    assert content_distance(network(much)[0], target) > content_distance(network(few)[0], target)
    assert torch.equal(stylize(network, *pair, weight=0, steps=5)[0], pair[0])


def test_stopped(network, pair):
    """The image after the parts that are done; without one there is none."""

    def stop_at(count):
        def progress(name, done, of):
            if done == count:
                raise KeyboardInterrupt

        return progress

    found, interrupted = stylize(network, *pair, weight=3, steps=30, progress=stop_at(10))
    assert interrupted and torch.equal(found, stylize(network, *pair, weight=3, steps=10)[0])
    with pytest.raises(KeyboardInterrupt):
        stylize(network, *pair, weight=3, steps=30, progress=stop_at(0))
