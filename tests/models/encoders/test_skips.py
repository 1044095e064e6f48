"""Features of the encoder in the generator: for any generator, from the generator itself on, at the right place."""

import pytest
import torch

from stylegan_cli.models.encoders.passes import encode
from stylegan_cli.models.encoders.pyramid import PyramidEncoder, encoder_config
from stylegan_cli.models.encoders.skips import SkipSynthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

SMALL = {"z_dim": 8, "w_dim": 12, "channel_base": 512, "channel_max": 8}
TINY = {"channel_base": 512, "channel_max": 8, "pyramid_channels": 6, "reduced_channels": 4}


def build(config, **options):
    torch.manual_seed(0)
    G = build_generator(config).requires_grad_(False)
    E = PyramidEncoder(encoder_config(config, G.layers, **TINY | options)).requires_grad_(False)
    return G, E, SkipSynthesis(E.config, G.synthesis).requires_grad_(False)


@pytest.mark.parametrize("family", [StyleGAN2Config, StyleGANConfig, StyleGAN3Config])
@pytest.mark.parametrize(("height", "width", "channels"), [(16, 16, 3), (24, 48, 4), (64, 32, 1)])
def test_it_starts_as_the_generator(family, height, width, channels):
    G, E, skips = build(family(height, width, channels=channels, **SMALL))
    x, features = torch.randn(2, channels, height, width), []
    ws = encode(E, G, x, skips=skips, features=features)
    assert torch.equal(ws, encode(E, G, x))
    assert [y.shape[1] for y in features[0]] == E.config.feature_channels
    assert [y.shape[2] for y in features[0]] == [height >> k for k in range(len(features[0]))][::-1]
    images = G.synthesis(ws)
    assert torch.equal(skips(ws, features[0]), images) and torch.equal(skips(ws, ()), images)
    assert skips.differences(G.synthesis).keys() == {name for name in skips.state_dict() if name.startswith("convs.")}
    for conv in skips.convs:  # each has an effect
        before = skips(ws, features[0])
        conv.weight.normal_()
        changed = skips(ws, features[0])
        assert not torch.allclose(changed, before, rtol=1e-3)
    assert torch.allclose(skips(ws[1:], [y[1:] for y in features[0]]), changed[1:], atol=1e-4)
    assert torch.equal(G.synthesis(ws), images), "the generator has not changed"


def test_one_convolution_per_level():
    G, E, skips = build(StyleGAN2Config(32, 32, **SMALL))
    assert [row.name for row in skips.rows] == [f"synthesis.b{k}.conv1" for k in (4, 8, 16, 32)]
    assert skips.levels == [0, 1, 2, 3]
    _, _, skips = build(StyleGAN3Config(32, 32, **SMALL))
    assert [row.height - 2 * row.margin for row in skips.rows] == [16, 32] and skips.levels == [2, 3]
    _, _, skips = build(StyleGAN2Config(512, 512, **SMALL | {"channel_base": 2048}))
    assert skips.levels == [0, 1, 2, 3, 4, 5, 6, 6], "the encoder sees 256 pixels"


def test_features_are_at_their_place():
    """Beyond the edges of the image, they go on."""
    _, _, skips = build(StyleGAN3Config(24, 48, **SMALL))
    row = skips.rows[0]
    size = row.height - 2 * row.margin, row.width - 2 * row.margin
    y = torch.randn(1, row.channels, *size)
    fitted, m = skips._fit(y, row), row.margin
    assert m and fitted.shape[2:] == (row.height, row.width) and torch.equal(fitted[..., m:-m, m:-m], y)
    assert torch.equal(fitted[..., 0, 0], y[..., 0, 0]) and torch.equal(fitted[..., -1, m], y[..., -1, 0])
    smaller = torch.randn(1, row.channels, size[0] // 2, size[1] // 2)
    assert skips._fit(smaller, row).shape == fitted.shape


def test_several_passes():
    """Each sees the image with the features of the one before."""
    G, E, skips = build(StyleGAN2Config(16, 16, **SMALL), passes=2)
    x, features = torch.randn(2, 3, 16, 16), []
    plain = encode(E, G, x)
    for conv in skips.convs:
        conv.weight.normal_()
    ws = encode(E, G, x, skips=skips, features=features)
    assert len(features) == 2 and not torch.allclose(ws, plain)
    first = E.latent_avg + E(torch.cat([x, G.synthesis(E.latent_avg[None]).expand(2, -1, -1, -1)], 1))
    assert torch.allclose(ws, first + E(torch.cat([x, skips(first, features[0])], 1)), atol=1e-5)


def test_they_carry_what_latents_cannot_say():
    """Images of noise are reproduced with features, not without."""
    errors = {}
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    for use in (False, True):
        _, E, skips = build(StyleGAN2Config(16, 16, **SMALL))
        parameters = [*E.requires_grad_(True).parameters(), *skips.requires_grad_(True).parameters()]
        optimizer = torch.optim.Adam(parameters, 0.02)
        for _ in range(80):
            features = []
            ws = E.latent_avg + E(x, features)
            loss = (skips(ws, features if use else ()) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[use] = loss.item()
    assert errors[True] < 0.6 * errors[False], errors
