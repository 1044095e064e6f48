"""The classic families: parameter counts, sizes of the papers' tables, labels, latents. Their values:
test_classic_definitions.py."""

import dataclasses
import re

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.models.biggan.config import BigGANConfig
from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.summary import parameter_count
from stylegan_cli.training.presets import make_train_config

FAMILIES = ("dcgan", "sngan", "sagan", "biggan")
SMALL = {"channel_base": 128, "channel_max": 8}


def config_of(cfg, size, classes=0, **options):
    spec = dataclasses.replace(open_dataset(None).spec, height=size, width=size)
    if classes:
        spec = dataclasses.replace(spec, label="x", classes=tuple(map(str, range(classes))))
    return make_train_config(cfg, spec, **options)


def small(cfg, classes=0, **options):
    torch.manual_seed(0)
    config = config_of(cfg, 16, classes, batch=4, **SMALL | options)
    return build_generator(config.generator), build_discriminator(config.discriminator)


# BigGAN's are published by its authors for 128 pixels; the others follow from the tables of the papers.
@pytest.mark.parametrize(
    ("cfg", "size", "classes", "G_count", "D_count"),
    [
        ("biggan", 128, 1000, 70_433_988, 87_982_370),
        ("sngan", 32, 0, 4_276_739, 1_053_825),
        ("sngan", 48, 0, 4_878_083, 10_141_441),
        ("sngan", 128, 1000, 41_996_931, 30_041_857),
        ("dcgan", 64, 0, 18_855_043, 17_232_897),
    ],
)
def test_parameter_counts(cfg, size, classes, G_count, D_count):
    config = config_of(cfg, size, classes)
    with torch.device("meta"):
        networks = build_generator(config.generator), build_discriminator(config.discriminator)
    assert tuple(map(parameter_count, networks)) == (G_count, D_count)


def channels(config):
    return {level.height: level.channels for level in config.levels()}


def test_sizes_of_the_tables():
    """SNGAN: tables 4 and 5 of the paper, and 8 in its appendix; BigGAN: tables 4 to 6; DCGAN: figure 1."""
    cifar, stl = config_of("sngan", 32), config_of("sngan", 48)
    assert channels(cifar.generator) == dict.fromkeys((4, 8, 16, 32), 256)
    assert list(channels(cifar.discriminator)) == [8, 16, 32] and cifar.discriminator.extra_blocks == 2
    assert channels(stl.generator) == {6: 512, 12: 256, 24: 128, 48: 64}
    assert channels(stl.discriminator) == {3: 512, 6: 256, 12: 128, 24: 64, 48: 32}
    big = config_of("biggan", 256, 10)
    assert list(channels(big.generator).values()) == [96 * n for n in (16, 16, 8, 8, 4, 2, 1)]
    assert (big.generator.attention, big.discriminator.attention) == (128, 64)
    assert list(channels(big.discriminator).values())[:-1] == [96 * n for n in (16, 8, 8, 4, 2, 1)]
    assert channels(config_of("dcgan", 64).generator) == {4: 1024, 8: 512, 16: 256, 32: 128, 64: 64}


@pytest.mark.parametrize("cfg", FAMILIES)
@pytest.mark.parametrize("classes", [0, 3])
def test_images_and_labels(cfg, classes):
    G, D = small(cfg, classes)
    z, c = torch.randn(4, G.config.z_dim), torch.eye(3)[[0, 1, 2, 0]] if classes else None
    image = G(z, c)
    assert image.shape == (4, 3, 16, 16) and image.abs().amax() <= 1
    assert D(image, c).shape == (4, 1)
    if classes:
        with torch.no_grad():
            for network in (G, D):
                for p in network.parameters():
                    p.add_(0.3 * torch.randn_like(p))
        G.eval(), D.eval()
        other = c.roll(1, 1)
        assert not torch.equal(G(z, other), G(z, c)) and not torch.equal(D(image, other), D(image, c))
        with pytest.raises(ValueError, match="needs c"):
            D(image)
        with pytest.raises(ValueError, match="needs c"):
            G(z)
    _, D = small(cfg, classes, info_continuous=2, **{"aux_classifier": True} if classes else {})
    assert D.forward_with_classes(image)[1].shape == (4, classes + 2)
    assert all(len(x) == 4 for x in D.features(image))
    with pytest.raises(ValueError, match="images must be"):
        D.features(image[:, :1])


def test_dcgan_takes_uniform_numbers():
    G, _ = small("dcgan")
    z = torch.randn(100_000, 100)[:, 0]
    w = G.mapping(torch.stack([z] * 100, 1)[:1000])[:, 0, 0]
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(w, 2 * normal.cdf(z[:1000]) - 1, atol=1e-6, rtol=0)


def test_parts_of_z_and_the_shared_embedding():
    G, _ = small("biggan", 3)
    G.eval()
    z, c = torch.randn(2, 60), torch.eye(3)[[0, 2]]
    ws = G.mapping(z, c)
    embedded = c @ G.mapping.embed.weight.T
    assert ws.shape == (2, 3, 20 + 128) and G.num_ws == len(G.layers) == 3
    for k in range(3):
        assert torch.equal(ws[:, k], torch.cat([z[:, 20 * k : 20 * k + 20], embedded], 1))
    changed = ws.clone()
    changed[:, 2] += 1
    features = [row.name for row in G.layers]
    before, after = (G.synthesis.read_features(w, features) for w in (ws, changed))
    same = [torch.equal(before[name], after[name]) for name in features]
    assert same == [True, True, False], "a part of z acts on its level and those above"
    with pytest.raises(SganError, match="a dimension is out of range"):
        BigGANConfig(16, 16, z_dim=2)


@pytest.mark.parametrize("cfg", [*FAMILIES, "r3gan", "stackgan"])
def test_truncation_leaves_the_class_alone(cfg):
    G = build_generator(config_of(cfg, 16, 3, batch=4, **SMALL).generator).eval()
    with torch.no_grad():
        G.mapping.w_avg.normal_()
        z, c = torch.randn(3, G.config.z_dim), torch.eye(3)
        ws, half, none = (G.mapping(z, c, psi) for psi in (1.0, 0.5, 0.0))
    part = G.mapping.part
    assert part < ws.shape[2] and torch.equal(half[..., part:], ws[..., part:])
    torch.testing.assert_close(half[..., :part], (ws[..., :part] + G.mapping.w_avg[:part]) / 2)
    torch.testing.assert_close(none[..., :part], G.mapping.w_avg[:part].expand_as(none[..., :part]))
    assert not torch.equal(none[0], none[1]), "of another class"


@pytest.mark.parametrize("cfg", FAMILIES)
def test_the_weights_of_styles(cfg):
    """The derivative of what a layer makes of its latent."""
    G, _ = small(cfg, 3)
    row = G.layers[0]
    w = torch.randn(1, G.config.w_dim, requires_grad=True)
    layer = G.get_submodule(row.name)
    jacobian = torch.autograd.functional.jacobian(lambda w: layer(w).flatten(), w)[:, 0]
    weight = G.style_weight(row)
    torch.testing.assert_close(weight, F.pad(jacobian, (0, weight.shape[1] - jacobian.shape[1])), atol=1e-5, rtol=1e-4)
    if cfg == "biggan":
        assert G.style_weight(G.layers[1]).shape == (4 * 8, 148)


@pytest.mark.parametrize("cfg", FAMILIES)
def test_batches(cfg):
    """Batch normalization mixes the images of G, and of DCGAN's D, while training."""
    G, D = small(cfg)
    z = torch.randn(4, G.config.z_dim)
    assert not torch.allclose(G(z)[:2], G(z[:2]), atol=1e-4)
    G.eval()
    torch.testing.assert_close(G(z)[:2], G(z[:2]), atol=1e-5, rtol=1e-4)
    x = torch.randn(4, 3, 16, 16)
    alone = torch.allclose(D(x)[:2], D(x[:2]), atol=1e-5)
    assert alone == (D.config.batch_group == 1) == (cfg != "dcgan")
    D.judge_separately()
    torch.testing.assert_close(D(x)[:2], D(x[:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("cfg", "batch", "gpus", "expected"),
    [
        ("biggan", None, 1, 64),
        ("biggan", None, 8, 64),
        ("biggan", None, 64, 32),
        ("sagan", None, 1, 64),
        ("stackgan", 16, 1, 16),
        ("dcgan", 100, 1, 100),
        ("dcgan", 134, 1, 67),  # not 2, the next divisor below
        ("lapgan", 128, 1, 128),
        ("r3gan", None, 1, 512),
    ],
)
def test_images_at_a_time(cfg, batch, gpus, expected):
    """What batch normalization sees together must fit one GPU; the others have less if memory does not suffice."""
    config = config_of(cfg, 32, batch=batch, gpus=gpus)
    assert config.batch_gpu == expected and config.batch % (expected * gpus) == 0
    assert config_of(cfg, 32, batch=16, batch_gpu=8).batch_gpu == 8


def test_attention_is_where_the_configuration_says():
    G, D = small("sagan")
    assert G.config.attention == D.config.attention == 8
    config = dataclasses.replace(G.config, attention=16)
    assert build_generator(config).synthesis.attention.gamma.shape == ()
    assert not hasattr(build_generator(dataclasses.replace(config, attention=0)).synthesis, "attention")
    d = build_discriminator(dataclasses.replace(D.config, attention=8))
    assert d.layers == ("b16", "attention", "b8", "extra0", "out")
    assert d(torch.randn(2, 3, 16, 16)).shape == (2, 1)


def test_sizes_that_a_family_cannot_make():
    with pytest.raises(SganError, match="no level above 8"):
        dataclasses.replace(config_of("sngan", 32).discriminator, height=8, width=8)
    with pytest.raises(SganError, match="have 2 levels, but these networks have channels for 3") as caught:
        DCGANConfig(8, 12, widths=(4, 4, 4))
    assert "--size 16x24," in caught.value.hint and len(DCGANConfig(16, 24, widths=(4, 4, 4)).levels()) == 3
    with pytest.raises(SganError, match="have 9 levels, but these networks have channels for 8") as caught:
        config_of("biggan", 1024)
    assert "--size 512," in caught.value.hint and config_of("biggan", 512)
    for network in ("generator", "discriminator"):  # as for sgan train --resume MODEL
        config = getattr(config_of("biggan", 128), network)
        with pytest.raises(MisuseError, match="20x40 .* no level 64 for self-attention, only") as caught:
            dataclasses.replace(config, height=20, width=40)
        assert "--size 160x320," in caught.value.hint and dataclasses.replace(config, height=160, width=320)


@pytest.mark.parametrize(
    ("cfg", "size", "hint"),
    [
        ("sngan", (8, 8), "--size 16,"),
        ("sngan", (6, 12), "--size 12x24,"),
        ("lapgan", (10, 20), "--size 20x40,"),
        ("stackgan", (8, 8), "--size 16,"),
        ("stackgan", (6, 6), "--size 12,"),
    ],
)
def test_sizes_that_are_too_small(cfg, size, hint):
    """The hint names a size that works."""
    spec = dataclasses.replace(open_dataset(None).spec, height=size[0], width=size[1])
    with pytest.raises(MisuseError, match=f"Images of {size[0]}x{size[1]} ") as caught:
        make_train_config(cfg, spec)
    assert hint in caught.value.hint
    sides = [int(side) for side in re.findall(r"\d+", hint)]
    make_train_config(cfg, dataclasses.replace(spec, height=sides[0], width=sides[-1]))


@pytest.mark.parametrize("cfg", ["sagan", "biggan"])
@pytest.mark.parametrize("size", [16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512])
def test_sizes_between_those_of_the_papers(cfg, size):
    check_sizes(cfg, size, size)


@pytest.mark.parametrize("cfg", ["sagan", "biggan"])
@pytest.mark.parametrize("size", [(120, 120), (176, 176), (20, 64), (24, 48), (160, 256), (288, 288), (64, 256)])
def test_odd_sizes_and_rectangles(cfg, size):
    """Networks follow from the level, which may be less than half of the longer side."""
    check_sizes(cfg, *size)


def check_sizes(cfg, height, width):
    spec = dataclasses.replace(open_dataset(None).spec, height=height, width=width)
    config = make_train_config(cfg, spec)
    for network in (config.generator, config.discriminator):
        assert network.attention in [level.name for level in network.levels()]


def test_channels_of_the_user_replace_the_widths_of_a_table():
    config = config_of("biggan", 256, channel_base=512, channel_max=32)
    assert config.generator.widths == () and list(channels(config.generator).values())[-3:] == [8, 4, 2]


@pytest.mark.parametrize("cfg", FAMILIES)
def test_other_rectangles_and_gray_images(cfg):
    options = {"channels": 1, "height": 12, "width": 24}
    config = config_of(cfg, 16, batch=4, **SMALL)
    G = build_generator(dataclasses.replace(config.generator, **options))
    D = build_discriminator(dataclasses.replace(config.discriminator, **options, lowest=4))
    image = G(torch.randn(2, G.config.z_dim))
    assert image.shape == (2, 1, 12, 24) and D(image).shape == (2, 1)
