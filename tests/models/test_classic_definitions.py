"""The classic networks beside plain definitions: outputs, and first and second derivatives in everything."""

import dataclasses

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.training.presets import make_train_config

from .plain_classic import Network

FAMILIES = ("dcgan", "sngan", "sagan", "biggan")
SIZE = (12, 24)  # levels of 3 x 6, 6 x 12 and 12 x 24 pixels
# Of the presets at 16 pixels: SNGAN's is that of CIFAR-10, whose discriminator halves the size once here.
ATTENTION = {"sagan": 8, "biggan": 8}
BLOCKS = {
    "sngan": [("b16", True), ("extra0", False), ("extra1", False)],
    "sagan": [("b16", True), ("b8", True), ("extra0", False)],
    "biggan": [("b16", True), ("b8", True), ("extra0", False)],
}


def networks(cfg, classes):
    """Of a preset, with a few channels, of which no two levels have equally many, and with weights that no symmetry
    makes equal."""
    torch.manual_seed(0)
    spec = dataclasses.replace(open_dataset(None).spec, height=16, width=16)
    if classes:
        spec = dataclasses.replace(spec, label="x", classes=tuple(map(str, range(classes))))
    config = make_train_config(cfg, spec, batch=4, channel_base=128, channel_max=48)
    g, d = (dataclasses.replace(c, height=SIZE[0], width=SIZE[1]) for c in (config.generator, config.discriminator))
    g = dataclasses.replace(g, z_dim=12, **{"embedding": 5} if cfg == "biggan" else {})
    built = build_generator(g).double(), build_discriminator(d).double()
    with torch.no_grad():
        for network in built:
            for name, t in network.state_dict().items():
                if t.is_floating_point() and not name.endswith(".u"):
                    t += 0.1 * torch.rand_like(t) if name.endswith("variance") else 0.1 * torch.randn_like(t)
    return built


def labels(classes):
    return torch.eye(classes, dtype=torch.float64)[[0, 2, 1, 0]] if classes else None


def plain_generator(cfg, tensors, z, c, training):
    net = Network(tensors, training)
    if cfg == "dcgan":
        return net, net.dcgan_generator(z, c, SIZE)
    return net, net.residual_generator(cfg, z, c, SIZE, ATTENTION.get(cfg))


def plain_discriminator(cfg, tensors, image, c, training):
    net = Network(tensors, training)
    if cfg == "dcgan":
        return net, net.dcgan_discriminator(image, c)
    attention = "b16" if cfg in ATTENTION else None  # behind the block whose result is the level 8
    return net, net.residual_discriminator(cfg, image, c, BLOCKS[cfg], attention)


def leaves(network):
    """A copy of its state, in which parameters have gradients."""
    names = dict(network.named_parameters())
    return {name: t.detach().clone().requires_grad_(name in names) for name, t in network.state_dict().items()}


def gradients(value, inputs):
    return torch.autograd.grad(value, inputs, retain_graph=True, create_graph=True, materialize_grads=True)


def assert_same(found, expected, names):
    for name, a, b in zip(names, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def compare(network, own, plain, x, unread):
    """own(x) -> y and plain(tensors, x) -> (the network that read them, y). Compare y and its derivatives in x and in
    all parameters. Return both y, what each depends on, and the names of that."""
    tensors, other = leaves(network), x.detach().clone().requires_grad_(True)
    names = ["input", *(name for name, _ in network.named_parameters())]
    inputs, others = [x, *network.parameters()], [other, *(tensors[name] for name in names[1:])]
    y = own(x)
    net, expected = plain(tensors, other)
    assert tensors.keys() - net.s.read == unread, "the definition reads all of its tensors"
    assert_same([y], [expected], ["output"])
    weight = torch.randn_like(y)
    first = gradients((y * weight).sum(), inputs), gradients((expected * weight).sum(), others)
    assert_same(*first, names)
    without = {name for name, g in zip(names, first[0]) if g.abs().max() < 1e-9}
    biases = (".conv0.bias", ".conv1.bias", ".skip.bias")  # of which batch normalization takes the mean away
    assert all(network.training and name.endswith(biases) for name in without), without
    return (y, expected), (inputs, others), names


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("cfg", FAMILIES)
def test_generators(cfg, classes, training):
    G, _ = networks(cfg, classes)
    G.train(training)
    z, c = torch.randn(4, 12, dtype=torch.float64, requires_grad=True), labels(classes)
    compare(G, lambda z: G(z, c), lambda s, z: plain_generator(cfg, s, z, c, training), z, {"mapping.w_avg"})


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("cfg", "training"), [*((cfg, True) for cfg in FAMILIES), ("dcgan", False)])
def test_discriminators(cfg, classes, training):
    """Also the gradient of R1's penalty."""
    _, D = networks(cfg, classes)
    D.train(training)
    image, c = torch.randn(4, 3, *SIZE, dtype=torch.float64, requires_grad=True), labels(classes)
    outputs, inputs, names = compare(
        D, lambda x: D(x, c), lambda s, x: plain_discriminator(cfg, s, x, c, training), image, set()
    )
    penalties = [gradients(y.sum(), [x[0]])[0].square().sum() for y, x in zip(outputs, inputs)]
    torch.testing.assert_close(*penalties, rtol=1e-9, atol=0)
    second = [gradients(p, x) for p, x in zip(penalties, inputs)]
    assert_same(*second, names)
    assert max(g.abs().max() for g in second[0]) > 1e-3
