"""Features of layers, read and changed by their names in the layer table, in every family with styles."""

import functools
import threading

import pytest
import torch

from stylegan_cli.models.frozen import frozen_synthesis
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

FAMILIES = {
    "skip": {},
    "resnet": {"architecture": "resnet"},
    "stylegan": {"kind": StyleGANConfig},
    "stylegan3": {"kind": StyleGAN3Config},
}


@pytest.fixture(params=FAMILIES)
def G(request, make_g):
    return make_g(24, 48, channels=4, **FAMILIES[request.param]).float()


def latents(G, count=2):
    return torch.randn(count, G.num_ws, G.synthesis.w_dim, generator=torch.Generator().manual_seed(3))


def read(G, ws, network=None, **options):
    maps = {}
    features = {row.name: functools.partial(maps.__setitem__, row.name) for row in G.layers}
    return (network or G.synthesis)(ws, features=features, **options), maps


def test_they_have_the_shapes_of_the_layer_table(G):
    ws = latents(G)
    image, maps = read(G, ws)
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        row.name: (row.channels, row.height, row.width) for row in G.layers
    }
    assert torch.equal(image, G.synthesis(ws)), "reading changes nothing"
    assert not any(m._forward_hooks for m in G.synthesis.modules()), "and nothing remains"


def test_they_have_gradients(G):
    ws = latents(G).requires_grad_(True)
    row = G.layers[-2]
    _, maps = read(G, ws)
    (gradient,) = torch.autograd.grad(maps[row.name].square().sum(), ws)
    used = gradient.abs().amax((0, 2)) > 0
    assert used[: G.layers[-3].w_index].all() and not used[row.w_index + 1 :].any()


def test_they_are_replaced(G):
    ws, row = latents(G), G.layers[len(G.layers) // 2]
    change = torch.zeros(1, row.channels, row.height, row.width).requires_grad_(True)
    image = G.synthesis(ws, features={row.name: lambda x: x + change})
    assert torch.equal(image, G.synthesis(ws))
    (gradient,) = torch.autograd.grad(image.square().sum(), change)
    assert gradient.abs().max() > 0
    first = G.synthesis(ws[:1], features={row.name: lambda x: x * 2})
    assert not torch.allclose(first, G.synthesis(ws[:1]), rtol=0.01)
    both = G.synthesis(ws, features={row.name: lambda x: x * torch.tensor([2.0, 1.0])[:, None, None, None]})
    assert torch.allclose(both[:1], first, atol=1e-5), "each image by itself"
    assert torch.allclose(both[1:], G.synthesis(ws[1:]), atol=1e-5)


def test_in_half_precision(G):
    """Features have the type of their layer, also where they are replaced by those of another type."""
    ws = latents(G)
    types = {}
    features = {row.name: lambda x, name=row.name: types.__setitem__(name, x.dtype) or x.float() for row in G.layers}
    image = G.synthesis(ws, dtype=torch.bfloat16, features=features)
    assert torch.equal(image, G.synthesis(ws, dtype=torch.bfloat16))
    low = {row.name for row in G.layers if row.half and row.kind == "conv"}
    assert low and all(types[name] == torch.bfloat16 for name in low)


def test_beside_the_frozen_path(G):
    ws, frozen = latents(G), frozen_synthesis(G)
    before = frozen(ws)
    image, maps = read(G, ws, frozen)
    assert maps.keys() == {row.name for row in G.layers} and torch.allclose(image, before, atol=1e-5)
    networks = list(frozen._networks.values())
    assert torch.equal(frozen(ws, features=None), before) and networks == list(frozen._networks.values())


def test_other_threads_do_not_see_them(G):
    ws, results = latents(G), []
    expected = G.synthesis(ws)

    def elsewhere(x):
        thread = threading.Thread(target=lambda: results.append(G.synthesis(ws)))
        thread.start()
        thread.join()
        return x * 0

    changed = G.synthesis(ws, features={G.layers[1].name: elsewhere})
    assert torch.equal(results[0], expected) and not torch.allclose(changed, expected)


def test_an_unknown_layer(G):
    with pytest.raises(ValueError, match="no layer 'b8'"):
        G.synthesis(latents(G), features={"b8": lambda x: x})


def test_margins(make_g):
    """An alias-free generator computes more than the image."""
    config = StyleGAN2Config(16, 16, z_dim=8, channel_base=64, channel_max=8)
    assert not any(row.margin for row in make_g(config.height, config.width).layers)
    for height, width in ((16, 16), (24, 48)):
        rows = make_g(height, width, kind=StyleGAN3Config).layers
        assert rows[0].margin == 10 and rows[-1].margin == rows[-2].margin == 0
        for row in rows:
            inner = row.height - 2 * row.margin, row.width - 2 * row.margin
            assert inner[0] * width == inner[1] * height and height % inner[0] == 0
