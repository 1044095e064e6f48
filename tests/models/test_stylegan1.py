"""StyleGAN of 2018 and the traditional generator: their sizes, layer tables and equations, and fades of levels."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from stylegan_cli.errors import SganError
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.growing import set_alpha
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.summary import parameter_count, summarize
from stylegan_cli.ops import append_minibatch_std

OLD = {"architecture": "orig", "fir": (1.0, 1.0)}
STYLEGAN = {"kind": StyleGANConfig, "fir": (1.0, 1.0), "blur": (1.0, 2.0, 1.0)}
PROGAN = {"kind": ProGANConfig, "fir": (1.0, 1.0)}


@pytest.mark.parametrize(("kind", "millions"), [(StyleGANConfig, 26.2), (ProGANConfig, 23.1)])
def test_parameter_counts(kind, millions):
    """Karras et al. 2019, section 2: 26.2 M parameters, the traditional generator 23.1 M."""
    with torch.device("meta"):
        G = build_generator(kind(1024, 1024, channel_base=16384))
        D = build_discriminator(LevelsDiscriminatorConfig(1024, 1024, channel_base=16384, **OLD))
    assert round(parameter_count(G) / 1e6, 1) == millions and round(parameter_count(D) / 1e6, 1) == 23.1


def up(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def conv(x, weight, gain=2**0.5):  # 'same'; the caller flips the weights of upsampling layers
    fan_in = weight.shape[1] * weight.shape[2] ** 2
    return F.conv2d(x, weight * (gain / math.sqrt(fan_in)), padding=weight.shape[2] // 2)


def blur(x):
    f = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    kernel = (f[:, None] * f).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def lrelu(x):
    return F.leaky_relu(x, 0.2)


def affine(layer, w):
    return F.linear(w, layer.affine.weight / math.sqrt(layer.affine.weight.shape[1]), layer.affine.bias)


def styled(layer, x, w, noise):
    x = x if noise is None else x + layer.noise_strength[:, None, None] * noise
    x = lrelu(x + layer.bias[:, None, None])
    x = (x - x.mean([2, 3], keepdim=True)) / (x.var([2, 3], correction=0, keepdim=True) + 1e-8).sqrt()
    scale, shift = affine(layer, w).chunk(2, 1)
    return x * (scale + 1)[:, :, None, None] + shift[:, :, None, None]


def rgb(images, x, level):
    layer = images.get_submodule(f"torgb{level}")
    return conv(x, layer.weight, 1) + layer.bias[:, None, None]


def level_features(G, ws, noise):
    """The features of each level by definition: nearest-neighbor upsampling, convolution, blur, noise, bias, AdaIN."""
    s, ws, noise = G.synthesis, list(ws.unbind(1)), [n if n is None else n[:, None] for n in noise]
    if G.config.input == "const":
        x = s.const.expand(ws[0].shape[0], -1, -1, -1)
    else:
        x = F.linear(ws[0], s.input.affine.weight * (math.sqrt(2) / 4 / math.sqrt(8))).reshape(-1, *s.input.shape)
    for level in (level.name for level in G.config.levels()):
        block = s.get_submodule(f"b{level}")
        if level > 4:
            x = blur(conv(up(x), block.conv0.weight.flip([2, 3])))
        x = styled(block.conv0, x, ws.pop(0), noise.pop(0))
        x = styled(block.conv1, conv(x, block.conv1.weight), ws.pop(0), noise.pop(0))
        yield x


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (12, 24)])
def test_stylegan_matches_its_definition(make_g, randn, size):
    G = make_g(*size, **STYLEGAN)
    ws = randn(3, G.num_ws, 8)
    noise = [randn(3, row.height, row.width) for row in G.layers]
    *_, x = level_features(G, ws, noise)
    expected = rgb(G.synthesis.pictures, x, G.config.levels()[-1].name)
    assert torch.allclose(G.synthesis(ws, noise=[n[:, None] for n in noise]), expected, atol=1e-10)


@pytest.mark.parametrize("input", ["const", "latent"])
def test_stylegan_without_noise(make_g, randn, input):
    """Karras et al. 2019, table 1: D has no noise, and C takes the latent at the lowest level too."""
    G = make_g(12, 24, input=input, noise=False, **STYLEGAN)
    ws = randn(3, G.num_ws, 8)
    assert [row.w_index for row in G.layers] == ([0] if input == "latent" else []) + list(range(G.num_ws))
    *_, x = level_features(G, ws, [None] * G.num_ws)
    expected = rgb(G.synthesis.pictures, x, G.config.levels()[-1].name)
    assert torch.allclose(G.synthesis(ws), expected, atol=1e-10)
    assert torch.allclose(frozen_synthesis(G)(ws), expected, atol=1e-10)
    assert not G.noise_layers and not [name for name in G.state_dict() if "noise" in name]
    with pytest.raises(SganError, match="generator input"):
        make_g(8, 8, input="image", **STYLEGAN)


def test_progan_matches_its_definition(make_g, randn):
    G = make_g(12, 24, **PROGAN)
    z = randn(3, 8)
    norm = lambda x: x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()  # noqa: E731
    first = G.synthesis.b4.conv0
    x = F.linear(norm(z), first.affine.weight * (math.sqrt(2) / 4 / math.sqrt(8))).reshape(3, *first.shape)
    x = norm(lrelu(x + first.bias[:, None, None]))
    for level in (level.name for level in G.config.levels()):
        block = G.synthesis.get_submodule(f"b{level}")
        if level > 4:
            x = conv(up(x), block.conv0.weight.flip([2, 3]), 1)
            x = norm(lrelu(x + block.conv0.bias[:, None, None]) * math.sqrt(2))
        x = norm(lrelu(conv(x, block.conv1.weight, 1) + block.conv1.bias[:, None, None]) * math.sqrt(2))
    assert torch.allclose(G(z), rgb(G.synthesis.pictures, x, level), atol=1e-10)
    assert torch.equal(G(z, noise="none"), G(z, noise="random")) and G.stored_noise() == []


def test_the_discriminator_matches_its_definition(make_d, randn):
    D, x = make_d(8, 16, **OLD, blur=(1.0, 2.0, 1.0), mbstd_group=2), randn(4, 3, 8, 16)
    image, gain = x, math.sqrt(2)
    layer = lambda l, x: conv(x, l.weight, 1)  # noqa: E731, E741
    act = lambda x, l: lrelu(x + l.bias[:, None, None]) * gain  # noqa: E731, E741
    for level in D.levels:
        b = D.get_submodule(f"b{level.name}")
        x = act(layer(b.fromrgb, x), b.fromrgb) if level == D.levels[0] else x
        x = act(layer(b.conv0, x), b.conv0)
        x = act(F.avg_pool2d(layer(b.conv1, blur(x)), 2), b.conv1)
    x = act(layer(D.b4.conv, append_minibatch_std(x, 2)), D.b4.conv)
    x = lrelu(F.linear(x.flatten(1), D.b4.fc.weight / math.sqrt(D.b4.fc.weight.shape[1]), D.b4.fc.bias)) * gain
    expected = F.linear(x, D.b4.out.weight / math.sqrt(D.b4.out.weight.shape[1]), D.b4.out.bias)
    assert torch.allclose(D(image), expected, atol=1e-10)


@pytest.mark.parametrize("options", [STYLEGAN, PROGAN], ids=["stylegan", "progan"])
def test_a_fade_blends_the_images_of_two_networks(make_g, randn, options):
    """One ends at the highest level, the other at the level below; they share the weights of the fading network."""
    G, z = make_g(16, 16, fade=True, **options), randn(3, 8)
    low, high = make_g(8, 8, **options), make_g(16, 16, **options)
    for network in (low, high):
        network.load_state_dict({k: v for k, v in G.state_dict().items() if k in network.state_dict()})
    for alpha in (0.0, 0.3, 1.0):
        set_alpha(G, alpha)
        assert torch.allclose(G(z), (1 - alpha) * up(low(z)) + alpha * high(z), atol=1e-6)


def test_the_discriminator_fades(make_d, randn):
    D, image = make_d(8, 8, fade=True, **OLD), randn(4, 3, 8, 8)
    top = D.b8.conv1(D.b8.conv0(D.b8.fromrgb(image)))
    low = D.b4.fromrgb(F.avg_pool2d(image, 2))
    for alpha in (0.0, 0.3, 1.0):
        set_alpha(D, alpha)
        x = append_minibatch_std((1 - alpha) * low + alpha * top, D.config.mbstd_group)
        assert torch.allclose(D(image), D.b4.out(D.b4.fc(D.b4.conv(x).flatten(1))), atol=1e-6)


def test_derivatives_during_a_fade(make_g, make_d, randn):
    G, D = make_g(8, 8, fade=True, **STYLEGAN), make_d(8, 8, fade=True, **OLD)
    for network in (G, D):
        set_alpha(network, 0.25)
    ws, image = randn(2, G.num_ws, 8).requires_grad_(True), randn(2, 3, 8, 8).requires_grad_(True)
    assert gradcheck(G.synthesis, (ws,), fast_mode=True) and gradgradcheck(G.synthesis, (ws,), fast_mode=True)
    assert gradcheck(D, (image,), fast_mode=True) and gradgradcheck(D, (image,), fast_mode=True)


def test_each_level_has_two_ws(make_g):
    G = make_g(32, 32, **STYLEGAN)
    assert [(row.name, row.w_index, row.height, row.noise) for row in G.layers[:3]] == [
        ("synthesis.b4.conv0", 0, 4, True),
        ("synthesis.b4.conv1", 1, 4, True),
        ("synthesis.b8.conv0", 2, 8, True),
    ]
    assert G.num_ws == len(G.layers) == 8
    with torch.device("meta"):
        assert build_generator(StyleGANConfig(1024, 1024)).num_ws == 18
    assert G.style_weight(G.layers[0]).shape == (2 * G.layers[0].channels, 8)


def test_truncated_is_the_default_cutoff(make_g, randn):
    G, z = make_g(16, 16, truncated=2, **STYLEGAN), randn(2, 8)
    ws, first_truncated = G.mapping(z), G.mapping(z, truncation_psi=0.5)
    assert torch.allclose(first_truncated[:, :2], ws[:, :2] / 2) and torch.equal(first_truncated[:, 2:], ws[:, 2:])
    all_truncated = G.mapping(z, truncation_psi=0.5, truncation_cutoff=G.num_ws)
    assert torch.allclose(all_truncated, ws / 2)


@pytest.mark.parametrize("options", [STYLEGAN, PROGAN], ids=["stylegan", "progan"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(make_g, randn, options, dtype):
    G = make_g(16, 16, **options).float()
    z = randn(2, 8).float()
    exact, low = G(z), G(z, dtype=dtype)
    assert low.dtype == torch.float32 and (low - exact).abs().max() < 20 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("options", [STYLEGAN, PROGAN], ids=["stylegan", "progan"])
def test_labels_and_summary(make_g, randn, options):
    labels = {"labels": "concat"} if options is STYLEGAN else {}
    G = make_g(8, 8, c_dim=3, **labels, **options).float()
    c = torch.eye(3)[[0, 2]]
    images = G(randn(2, 8).float(), c)
    assert images.shape == (2, 3, 8, 8) and not torch.equal(images, G(randn(2, 8).float(), c[[1, 1]]))
    table = summarize("Generator", G, torch.zeros(1, 8), c[:1])
    counts = [int(line.split()[-1].replace(",", "")) for line in table.splitlines()[1:]]
    assert sum(counts[:-1]) == counts[-1] == parameter_count(G)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**STYLEGAN, "blur": (1.0, 1.0)}, "filter"),
        ({**STYLEGAN, "blur": (1.0, -2.0, 1.0)}, "filter"),
    ],
)
def test_invalid_configurations(make_g, options, message):
    with pytest.raises(SganError, match=message):
        make_g(8, 8, **options)
    with pytest.raises(SganError):
        make_g(4, 4)
