"""Dragging: motion supervision and tracking on features that are known, masks, and drags of every kind of generator."""

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.dragging import (
    Dragger,
    DragOptions,
    disc,
    feature_layer,
    hold_weights,
    motion_loss,
    sample,
    square,
    track,
)
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config

SIZE = (12, 16)


def blob(x, y, size=SIZE):  # [1, 2, H, W]
    """A bump with its center at a point, in pixels from the corner, and the ramp in which it lies."""
    ys, xs = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return torch.stack([(-((xs - x) ** 2 + (ys - y) ** 2) / 8).exp(), xs / 100])[None]


def generator(config=StyleGAN2Config, size=(16, 16), **fields):
    torch.manual_seed(0)
    common = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8}
    return build_generator(config(*size, **{**common, **fields})).requires_grad_(False)


def start(G, seed=1):
    c = torch.eye(G.config.c_dim)[:1] if G.config.c_dim else None
    return G.mapping(torch.randn(1, G.config.z_dim, generator=torch.Generator().manual_seed(seed)), c)


def dragger(G, handles=((5.0, 5.0),), targets=((8.0, 6.0),), mask=None, **options):
    return Dragger(G, start(G), handles, targets, DragOptions(**options), mask)


def test_features_between_pixels():
    x = torch.arange(16.0).expand(1, 1, 12, 16)
    points = torch.tensor([[[0.5, 3.0], [4.0, 7.25], [16.0, 0.0]]])
    assert torch.allclose(sample(x, points, SIZE), torch.tensor([[[0.0], [3.5], [15.0]]]), atol=1e-5)
    low = torch.nn.functional.interpolate(x, (6, 8), mode="area")  # a layer of half the size
    assert torch.allclose(sample(low, points[:, 1:2], SIZE), torch.tensor([[[3.5]]]), atol=1e-5)


def test_offsets():
    assert square(1, 0.5).shape == (25, 2) and disc(1, 1).tolist() == [[0, 0], [-1, 0], [0, -1], [0, 1], [1, 0]]
    assert square(2, 1)[0].tolist() == [0, 0] and (square(2, 1).norm(dim=1).diff() >= 0).all()


def test_tracking_finds_where_the_feature_went():
    handle = torch.tensor([[5.5, 4.5]])
    wanted = sample(blob(5.5, 4.5), handle[:, None], SIZE)[..., :1]
    moved = blob(7.5, 5.5)[:, :1]
    assert track(moved, wanted, handle, square(3, 0.5), SIZE).tolist() == [[7.5, 5.5]]
    assert track(moved, wanted, handle, square(0.5, 0.5), SIZE).tolist() == [[6.0, 5.0]]  # out of reach
    same = torch.ones(1, 1, *SIZE)
    assert track(same, same[0, :, :1, 0][None], handle, square(3, 1), SIZE).tolist() == [[5.5, 4.5]]
    corner = torch.tensor([[15.5, 11.5]])
    assert (track(-blob(40, 40), wanted.expand(1, 1, 2), corner, square(3, 1), SIZE) <= torch.tensor([16, 12])).all()


def test_motion_supervision_moves_a_bump_to_its_target():
    """The gradient of the position of a bump points from the target to the handle: descent goes to the target."""
    handle, patch = torch.tensor([[6.0, 6.0]]), disc(2, 1)
    for way in ([1.0, 0.0], [0.0, -1.0], [-0.6, 0.8]):
        place = torch.tensor([6.0, 6.0], requires_grad=True)
        loss = motion_loss(blob(*place), handle, torch.tensor([way]), patch, SIZE)
        (slope,) = torch.autograd.grad(loss, [place])
        assert torch.nn.functional.cosine_similarity(-slope, torch.tensor(way), dim=0) > 0.9


def test_motion_supervision_by_hand():
    """|F(q) - F(q + d)| with a gradient of the second part only: on a ramp of slope 2, the loss is 2 for one pixel."""
    ramp = (2 * torch.arange(16.0)).expand(1, 3, 12, 16).clone().requires_grad_(True)
    points, step = torch.tensor([[5.5, 5.5], [9.5, 5.5]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = motion_loss(ramp, points, step, disc(0, 1), SIZE)
    (slope,) = torch.autograd.grad(loss, [ramp])
    assert loss.item() == pytest.approx(2)
    assert slope.nonzero()[:, 2:].unique(dim=0).tolist() == [[5, 6]] and slope.sum().item() == pytest.approx(1)


def test_weights_of_what_is_held():
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:2, :3] = True
    assert hold_weights(mask, torch.zeros(1, 5, 2, 4)).tolist() == [[[[0, 0.5, 1, 1], [1, 1, 1, 1]]]]


def test_steps_lower_the_distance_and_touch_only_coarse_latents():
    G = generator()
    drag = dragger(G, steps=40, lr=0.05, coarse=3, layer="b16.conv0")
    first = drag.state
    assert first.index == 0 and first.points == [(5.0, 5.0)] and first.distance == [pytest.approx(10**0.5)]
    steps = [drag.step() for _ in range(40)]
    assert steps[-1].done and steps[-1].index == 40 and steps[-1].loss > 0
    assert min(step.distance[0] for step in steps) < 0.7 * first.distance[0]
    assert torch.equal(steps[-1].ws[:, 3:], first.ws[:, 3:]) and not torch.equal(steps[-1].ws[:, :3], first.ws[:, :3])
    assert torch.equal(first.ws, start(G))  # not changed in place


def test_arrived_at_once():
    assert dragger(generator(), targets=((5.5, 5.0),)).state.done


def test_a_handle_that_has_arrived_is_held():
    """Its loss is that of staying: without any change, none."""
    drag = dragger(generator(), handles=((5.0, 5.0), (9.0, 9.0)), targets=((5.0, 5.0), (9.0, 9.0)), tolerance=0)
    assert drag.step().loss == 0


def test_deterministic_and_independent_of_gradient_mode():
    G = generator()
    first = dragger(G, steps=5)
    second = dragger(G, steps=5)
    with torch.no_grad():
        for _ in range(5):
            a, b = first.step(), second.step()
            assert torch.equal(a.ws, b.ws) and a.points == b.points and a.loss == b.loss


def test_mask_lowers_the_change_outside():
    G = generator()
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:10, 2:12] = True
    before, change = G.synthesis(start(G)), {}
    for name, used in (("free", None), ("masked", mask), ("everything", torch.ones_like(mask))):
        drag = dragger(G, mask=used, steps=25, lr=0.03, tolerance=0)
        while not drag.state.done:
            drag.step()
        change[name] = (G.synthesis(drag.ws) - before).abs().mean(1)[0][~mask].mean().item()
    assert change["masked"] < 0.8 * change["free"] and change["everything"] == change["free"]


@pytest.mark.parametrize(
    "config, size, fields",
    [
        (StyleGAN2Config, (16, 32), {"channels": 1}),
        (StyleGAN2Config, (48, 16), {"channels": 4, "architecture": "resnet"}),
        (StyleGAN2Config, (16, 16), {"c_dim": 3}),
        (StyleGANConfig, (16, 16), {}),
    ],
)
def test_every_family_and_shape(config, size, fields):
    G = generator(config, size, **fields)
    drag = dragger(G, handles=((3.0, 4.0), (10.0, 9.0)), targets=((6.0, 4.0), (10.0, 6.0)), steps=3)
    step = drag.step()
    assert len(step.points) == len(step.distance) == 2 and step.ws.isfinite().all()
    assert all(0 <= x <= size[1] and 0 <= y <= size[0] for x, y in step.points)
    assert not torch.equal(step.ws, start(G))


def test_moving_input_stays(moving_generator):
    """The latent that only moves the image is not changed: content is to move, not the frame."""
    G = moving_generator(16, 256, 16).requires_grad_(False)
    drag = dragger(G, steps=3)
    ws = drag.step().ws
    assert torch.equal(ws[:, 0], start(G)[:, 0]) and not torch.equal(ws[:, 1], start(G)[:, 1])


def test_layers():
    G = generator(size=(64, 64))
    assert feature_layer(G, "b8.conv1") is feature_layer(G, "synthesis.b8.conv1")
    with pytest.raises(SganError, match=r"no layer 'b64.torgb'") as e:
        feature_layer(G, "b64.torgb")
    assert "b4.conv1, b8.conv0" in e.value.hint


def test_generators_without_styles_are_refused():
    with pytest.raises(SganError, match="needs a model with styles, which ProGAN models do not have"):
        feature_layer(build_generator(ProGANConfig(16, 16, z_dim=8, channel_base=128, channel_max=8)))


def test_features_of_upper_layers_are_not_computed(monkeypatch):
    G, ws = generator(size=(32, 32)), start(generator(size=(32, 32)))
    names = ["synthesis.b8.conv1", "synthesis.b4.conv1"]
    calls, full = [], {}
    G.synthesis(ws, features={row.name: lambda x, n=row.name: full.update({n: x}) for row in G.layers})
    for row in G.layers:
        G.get_submodule(row.name).register_forward_hook(lambda *_, n=row.name: calls.append(n))
    found = G.synthesis.read_features(ws, names)
    assert all(torch.equal(found[name], full[name]) for name in names) and found.keys() == set(names)
    assert not any("b16" in n or "b32" in n for n in calls)
    ws.requires_grad_(True)
    (slope,) = torch.autograd.grad(G.synthesis.read_features(ws, names[:1])[names[0]].sum(), [ws])
    assert slope[:, :3].any() and not slope[:, 3:].any()
    assert torch.equal(G.synthesis(ws), G.synthesis(ws.detach()))  # no hook is left
    with pytest.raises(ValueError, match="no layer 'b9'"):
        G.synthesis.read_features(ws, ["b9"])


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": -1}, {"radius": float("nan")}, {"layer": 3}, {"coarse": 0}])
def test_invalid_options(options):
    with pytest.raises(SganError, match=next(iter(options))):
        DragOptions(**options)
