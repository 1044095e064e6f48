"""R3GAN's generator with styles: against its definition, its layer table, derivatives, and what latents change."""

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.style_r3gan.config import StyleR3GANConfig
from stylegan_cli.models.style_r3gan.network import StyledBlock
from stylegan_cli.models.summary import summarize

from .test_r3gan import resampled

SMALL = {"channel_base": 128, "channel_max": 24, "group_channels": 8, "z_dim": 5, "w_dim": 6}


def make(c_dim=0, size=(16, 16), **changes):
    torch.manual_seed(0)
    G = build_generator(StyleR3GANConfig(*size, c_dim=c_dim, **SMALL | changes)).double().requires_grad_(False)
    for p in G.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return G


def styled_block(x, w, noise, s, name):
    y = F.leaky_relu(F.conv2d(x, s[f"{name}.conv0.weight"]) + s[f"{name}.bias0"][:, None, None], 0.2)
    y = F.conv2d(y, s[f"{name}.conv1.weight"], padding=1, groups=y.shape[1] // 8) + s[f"{name}.bias1"][:, None, None]
    y = (
        F.leaky_relu(y + s[f"{name}.noise_strength"] * noise, 0.2)
        * (1 + w @ s[f"{name}.affine.weight"].t())[:, :, None, None]
    )
    return x + F.conv2d(y, s[f"{name}.conv2.weight"])


@pytest.mark.parametrize("noise", [0, 1])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_generator_against_its_definition(c_dim, noise):
    G = make(c_dim)
    c = torch.eye(3, dtype=torch.float64)[[2, 0]] if c_dim else None
    ws, s = G.mapping(torch.randn(2, 5, dtype=torch.float64), c), G.state_dict()
    ws = ws + torch.randn_like(ws)  # another one for each block
    x = s["synthesis.b4.basis.maps"] * (ws[:, 0] @ s["synthesis.b4.basis.affine.weight"].t())[:, :, None, None]
    for k, level in enumerate((4, 8, 16)):
        if k:
            name = f"synthesis.b{level}.resample.conv.weight"
            x = resampled(F.conv2d(x, s[name]) if name in s else x, up=True)
        for i in range(2):
            name = f"synthesis.b{level}.blocks.{i}"
            x = styled_block(x, ws[:, 2 * k + i], noise * s[f"{name}.noise_const"], s, name)
    expected = F.conv2d(x, s["synthesis.torgb.weight"])
    mode = "const" if noise else "none"
    torch.testing.assert_close(G.synthesis(ws, mode), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(frozen_synthesis(G)(ws, mode), expected, rtol=1e-10, atol=1e-12)


def test_the_layer_table():
    """A latent for each block; the first block shares that of the learned maps."""
    G = make(blocks=3)
    assert [(row.path, row.w_index, row.group) for row in G.layers[:5]] == [
        ("b4.basis", 0, 0),
        *((f"b4.blocks.{i}", i, 0) for i in range(3)),
        ("b8.blocks.0", 3, 1),
    ]
    assert G.num_ws == 9 and G.noise_layers == G.layers[1:] and not make(noise=False).noise_layers
    maps = G.synthesis.read_features(G.mapping(torch.zeros(1, 5, dtype=torch.float64)), [row.name for row in G.layers])
    assert [tuple(x.shape[1:]) for x in maps.values()] == [(r.channels, r.height, r.width) for r in G.layers]
    assert all(G.style_weight(row).shape[1] == 6 for row in G.layers)


def test_the_summary_counts_each_parameter_once():
    G = build_generator(StyleR3GANConfig(16, 16, **SMALL))
    lines = [line.rsplit(maxsplit=1) for line in summarize("G", G, torch.zeros(1, 5)).splitlines()[1:]]
    *counts, total = [int(count.replace(",", "")) for _, count in lines]
    assert sum(counts) == total == sum(p.numel() for p in G.parameters())
    assert any(name.startswith("synthesis.b8.blocks.1 ") for name, _ in lines)


def test_at_first_only_the_learned_maps_take_a_latent():
    torch.manual_seed(0)
    blocks = [m for m in build_generator(StyleR3GANConfig(16, 16, **SMALL)).modules() if isinstance(m, StyledBlock)]
    assert len(blocks) == 6 and not any(b.affine.weight.any() or b.noise_strength.any() for b in blocks)


def test_a_latent_changes_the_layers_from_its_own_on():
    G = make()
    ws = torch.randn(1, 6, 6, dtype=torch.float64)
    changed = ws.clone()
    changed[:, 3] += 1  # of the second block of level 8
    names = [row.name for row in G.layers]
    a, b = G.synthesis.read_features(ws, names), G.synthesis.read_features(changed, names)
    assert [not torch.equal(a[name], b[name]) for name in names] == [row.w_index >= 3 for row in G.layers]


def test_first_and_second_derivatives():
    G = make(size=(6, 12), c_dim=0)
    ws = torch.randn(1, G.num_ws, 6, dtype=torch.float64, requires_grad=True)
    weights = {name: p.detach().requires_grad_(True) for name, p in G.synthesis.named_parameters() if "b12" in name}

    def image(ws, *values):
        return torch.func.functional_call(G.synthesis, dict(zip(weights, values, strict=True)), (ws,))

    assert torch.autograd.gradcheck(image, (ws, *weights.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(image, (ws, *weights.values()), fast_mode=True)


def test_levels_that_run_in_half_precision():
    G = make().float()
    full, half = G(torch.ones(2, 5)), G(torch.ones(2, 5), dtype=torch.bfloat16)
    assert half.dtype == torch.float32 and 0 < (full - half).abs().max() < 0.1 * full.abs().max()
