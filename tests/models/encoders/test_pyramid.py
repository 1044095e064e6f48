"""The pyramid encoder: its shapes for any generator, where its levels come from, what it starts from."""

import pytest
import torch

from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.encoders.pyramid import EncoderConfig, PyramidEncoder, encoder_config
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

SMALL = {"z_dim": 8, "w_dim": 12, "channel_base": 512, "channel_max": 8}
TINY = {"channel_base": 512, "channel_max": 8, "pyramid_channels": 6, "reduced_channels": 4}


def build(config, **options):
    with torch.device("meta"):
        G = build_generator(config)
    torch.manual_seed(0)
    return PyramidEncoder(encoder_config(config, G.layers, **TINY | options)).requires_grad_(False), G.num_ws


@pytest.mark.parametrize("family", [StyleGAN2Config, StyleGANConfig, StyleGAN3Config])
@pytest.mark.parametrize(("height", "width", "channels"), [(16, 16, 3), (24, 48, 4), (32, 16, 1)])
@pytest.mark.parametrize("space", ["w", "w+"])
@pytest.mark.parametrize("passes", [1, 3])
def test_latents_of_any_generator(family, height, width, channels, space, passes):
    E, num_ws = build(family(height, width, channels=channels, **SMALL), space=space, passes=passes)
    x = torch.randn(2, channels * (2 if passes > 1 else 1), height, width)
    ws = E(x)
    assert ws.shape == (2, num_ws, 12) and ws.isfinite().all()
    assert torch.allclose(ws, ws[:, :1].expand_as(ws)), "all latents of an image start alike"
    for head in E.heads:
        head.weight.normal_()
    ws = E(x)
    assert torch.equal(ws, ws[:, :1].expand_as(ws)) == (space == "w")


def test_each_image_is_encoded_by_itself():
    E, _ = build(StyleGAN2Config(16, 16, **SMALL))
    x = torch.randn(3, 3, 16, 16)
    assert torch.allclose(E(x)[1:2], E(x[1:2]), atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "halvings", "seen"),
    [(256, 256, 0, (256, 256)), (512, 512, 1, (256, 256)), (1024, 768, 2, (256, 192)), (320, 640, 2, (80, 160))],
)
def test_large_images_are_averaged(height, width, halvings, seen):
    E, num_ws = build(StyleGAN2Config(height, width, **SMALL | {"channel_base": 2048}))
    trunk = E.config.trunk()
    assert E.config.halvings == halvings and (trunk.height, trunk.width) == seen
    x = torch.randn(1, 3, height, width)
    ws = E(x)
    assert ws.shape == (1, num_ws, 12)
    noise = torch.randn(1, 3, *seen).repeat_interleave(2**halvings, 2).repeat_interleave(2**halvings, 3)
    checkers = torch.tensor([[1.0, -1], [-1, 1]]).repeat(height // 2, width // 2)
    if halvings:
        assert torch.allclose(E(noise), E(noise + checkers), atol=1e-5), "detail below the pixels that it sees"


def test_levels_follow_the_layers():
    E, _ = build(StyleGAN2Config(64, 64, **SMALL))
    assert E.config.levels == (0, 0, 1, 1, 2, 2, 3, 3, 3, 3)  # at most half the size of the image
    E, num_ws = build(StyleGAN3Config(64, 64, **SMALL))
    assert len(E.config.levels) == num_ws and list(E.config.levels) == sorted(E.config.levels)
    E, _ = build(StyleGAN2Config(512, 512, **SMALL | {"channel_base": 2048}))
    assert max(E.config.levels) == 4 and len(E.lateral) == 5  # 16 times the lowest size
    E, _ = build(StyleGAN2Config(8, 8, **SMALL))
    assert E.config.levels == (0, 0, 0, 0)


def test_it_starts_from_the_discriminator():
    """Every module on the way down and the first layer; of another architecture, what has the same shape."""
    config = StyleGAN2Config(32, 32, **SMALL)
    E, _ = build(config)
    D = build_discriminator(LevelsDiscriminatorConfig(32, 32, channel_base=512, channel_max=8))
    before = {name: t.clone() for name, t in E.state_dict().items()}
    E.start_from(D)
    own, given = E.state_dict(), D.state_dict()
    copied = {name for name in own if not torch.equal(own[name], before[name])}
    assert all(torch.equal(own[name], given[name]) for name in own if name.startswith("b"))
    assert torch.equal(own["fromrgb.weight"], given["b32.fromrgb.weight"])
    assert copied == {name for name in own if name.startswith(("b32", "b16", "b8", "fromrgb")) and "bias" not in name}
    E, _ = build(config, channel_max=4)
    E.start_from(D)  # nothing has its shape
    E, _ = build(config, passes=2)
    before = E.fromrgb.weight.clone()
    E.start_from(D)
    assert torch.equal(E.fromrgb.weight, before), "it also sees the image of its latents"


def test_gradients_reach_every_weight():
    E, _ = build(StyleGAN2Config(16, 16, **SMALL))
    E.requires_grad_(True)
    for head in E.heads:
        torch.nn.init.normal_(head.weight)
    E(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert [name for name, p in E.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"levels": ()},
        {"levels": (0, 9)},
        {"levels": (-1,)},
        {"w_dim": 0},
        {"passes": 0},
        {"inputs": 0},
        {"inputs": 10**6},
        {"pyramid_channels": 10**9},
        {"space": "x"},
        {"space": "z", "levels": (0, 0)},
        {"space": "z", "passes": 2, "levels": (0,)},
        {"channels": 2},
        {"height": 17},
        {"channel_base": 2},
    ],
    ids=str,
)
def test_invalid_configurations(fields):
    with pytest.raises((SganError, MisuseError)):
        EncoderConfig(**{"height": 16, "width": 16, "levels": (0, 1)} | fields)
