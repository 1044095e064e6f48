"""Paths through the latent space, and the frames of a video along them."""

import math

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.sampling.generate import SamplingOptions, generate_images, map_seeds
from stylegan_cli.sampling.interpolate import (
    Frames,
    frame_times,
    lerp,
    linear,
    plan_video,
    slerp,
    spherical,
    spline,
    style_sweep,
    truncation_sweep,
)
from stylegan_cli.sampling.latent_files import save_latents
from stylegan_cli.sampling.latents import latents_from_seeds

KINDS = ("spline", "linear", "slerp", "trunc", "mix")


@pytest.fixture(scope="module")
def G(small_model):
    return small_model()


@pytest.fixture
def keyframes():
    return torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(1))


def times(*t):
    return torch.tensor(t, dtype=torch.float64)


def noise_for(G, value):
    return {row.name: torch.full((1, 1, row.height, row.width), float(value)) for row in G.layers if row.noise}


def video(G, items=(0, 1, 2), kind="spline", options=None, **more):
    return plan_video(G, list(items), options or SamplingOptions(), kind, **{"steps": 4, **more})


def images(video, options=None):
    options = options or SamplingOptions()
    generated = generate_images(video.G, lambda i, j: video.ws[i:j], range(len(video.ws)), options, noise=video.noise)
    return torch.stack(list(generated))


def test_slerp_has_constant_speed_on_the_sphere():
    a, b = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    points = [slerp(a, b, torch.full([5, 1], t).double()) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert torch.allclose(points[0], a / a.norm(dim=1, keepdim=True) * 4, atol=1e-5)
    assert torch.allclose(points[4], b / b.norm(dim=1, keepdim=True) * 4, atol=1e-5)
    angles = [torch.acos((p * q).sum(1) / 16) for p, q in zip(points, points[1:])]
    assert all(torch.allclose(angle, angles[0], atol=1e-5) for angle in angles)
    assert torch.allclose(sum(angles), torch.acos((points[0] * points[4]).sum(1) / 16), atol=1e-5)


def test_slerp_of_equal_and_of_opposite_points():
    a = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    on_sphere = torch.nn.functional.normalize(a, dim=1) * 4
    for t in (0.0, 0.3, 1.0):
        assert torch.allclose(slerp(a, a, torch.full([3, 1], t).double()), on_sphere, atol=1e-5)
        assert slerp(a, -a, torch.full([3, 1], t).double()).isfinite().all()


def test_lerp():
    a, b = torch.randn(2, 5, 3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lerp(a, b, torch.zeros(5, 1, 1).double()), a)
    assert torch.equal(lerp(a, b, torch.ones(5, 1, 1).double()), b)


@pytest.mark.parametrize("num_keyframes", [2, 3, 7])
@pytest.mark.parametrize("steps", [1, 4, 45])
def test_frame_times(num_keyframes, steps):
    once, loop = frame_times(num_keyframes, steps, False), frame_times(num_keyframes, steps, True)
    assert len(once) == (num_keyframes - 1) * steps + 1 and len(loop) == num_keyframes * steps
    assert once[::steps].tolist() == list(range(num_keyframes)) == loop[::steps].tolist()
    assert loop[-1] == num_keyframes - 1 / steps, "one step before the first frame recurs"


@pytest.mark.parametrize("loop", [True, False])
def test_paths_pass_exactly_through_their_keyframes(keyframes, loop):
    t = torch.arange(5).double()
    for path in (linear(keyframes), spline(keyframes, loop)):
        assert torch.equal(path(t), keyframes)
        if loop:
            assert torch.equal(path(t + 5), keyframes)


def test_linear_is_straight(keyframes):
    path = linear(keyframes)
    assert torch.allclose(path(times(1.25))[0], 0.75 * keyframes[1] + 0.25 * keyframes[2])
    assert torch.allclose(path(times(4.5))[0], (keyframes[4] + keyframes[0]) / 2)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("loop", [True, False])
def test_spline_solves_its_equations(keyframes, count, loop):
    """Periodic or natural: its second derivatives m solve m[i-1] + 4 m[i] + m[i+1] = 6 (y[i-1] - 2 y[i] + y[i+1])."""
    y = keyframes[:count].double()
    one = torch.eye(count, dtype=torch.float64)
    system, right = 4 * one + one.roll(1, 0) + one.roll(-1, 0), 6 * (y.roll(1, 0) - 2 * y + y.roll(-1, 0))
    if not loop:
        system[[0, -1]], right[[0, -1]] = one[[0, -1]], 0.0
    m = torch.linalg.solve(system, right.flatten(1)).reshape(y.shape)
    path = spline(y, loop)
    for i in range(count if loop else count - 1):
        j = (i + 1) % count
        for b in (0.1, 0.5, 0.8):
            a = 1 - b
            expected = a * y[i] + b * y[j] + ((a**3 - a) * m[i] + (b**3 - b) * m[j]) / 6
            assert torch.allclose(path(times(i + b))[0], expected, atol=1e-12)


def test_the_spline_has_no_corner_anywhere(keyframes):
    """Compare value, slope and curvature on both sides of every keyframe, including the seam."""
    path, h = spline(keyframes.double(), True), 1e-3
    for k in range(5):
        left = path(times(k - 2 * h, k - h, k - 1e-12) + 5)
        right = path(times(k + 1e-12, k + h, k + 2 * h))
        assert torch.allclose(left[2], right[0], atol=1e-9)
        slopes = (3 * left[2] - 4 * left[1] + left[0]) / (2 * h), (4 * right[1] - 3 * right[0] - right[2]) / (2 * h)
        assert torch.allclose(*slopes, atol=1e-4)
        curvatures = [(p[0] - 2 * p[1] + p[2]) / h**2 for p in (left, right)]
        assert torch.allclose(*curvatures, atol=0.2) and curvatures[0].abs().max() > 2
    kink = linear(keyframes.double())(times(-h, 0, h) + 5)
    assert ((kink[0] - 2 * kink[1] + kink[2]) / h).abs().max() > 0.1, "the check detects corners"


def test_a_path_of_one_keyframe_is_constant(keyframes):
    for path in (linear(keyframes[:1]), spline(keyframes[:1], True)):
        assert torch.equal(path(times(0, 0.3, 1.7)), keyframes[:1].expand(3, -1, -1))


def test_spherical_path(G):
    options = SamplingOptions(trunc=0.7, trunc_cutoff=2)
    path = spherical(G, [5, 6], options)
    assert torch.allclose(path(times(0, 1, 2)), map_seeds(G, [5, 6, 5], options), atol=1e-5)
    a, b = latents_from_seeds([5, 6], 8).chunk(2)
    assert torch.allclose(path(times(0.3)), G.mapping(slerp(a, b, times(0.3)[:, None]), None, 0.7, 2), atol=1e-6)


@pytest.mark.parametrize("cfg", ["dcgan", "sngan", "lapgan"])
def test_a_spherical_path_passes_through_the_images_of_its_seeds(direct_model, cfg):
    """Also where no mapping network normalizes z."""
    G, options = direct_model(cfg, c_dim=3), SamplingOptions()
    assert torch.allclose(spherical(G, [1, 2, 3], options)(times(0, 1, 2)), map_seeds(G, [1, 2, 3], options), atol=1e-5)
    plan = video(G, (1, 2, 3), "slerp")
    ws = map_seeds(G, [1, 2, 3], options)
    stills = torch.stack(list(generate_images(G, lambda i, j: ws[i:j], range(3), options)))
    assert (images(plan)[::4].int() - stills.int()).abs().max() <= 1


def test_a_model_of_one_latent_has_nothing_to_mix(direct_model):
    for styles in (None, "coarse", [0]):
        with pytest.raises(SganError, match="has one latent for all layers") as caught:
            video(direct_model("dcgan"), kind="mix", styles=styles)
        assert caught.value.hint == ("Use --kind spline, and remove --styles." if styles else "Use --kind spline.")


def test_classes_are_interpolated(small_model):
    G = small_model(c_dim=3)
    path = spherical(G, [1, 2, 3, 4], SamplingOptions())
    assert torch.allclose(path(torch.arange(4).double()), map_seeds(G, [1, 2, 3, 4], SamplingOptions()), atol=1e-5)
    t = torch.linspace(0, 4, 401).double()
    assert (path(t[1:]) - path(t[:-1])).norm(dim=2).max() < 0.2, "no jump between classes"


def test_truncation_sweep(G, keyframes):
    path = truncation_sweep(G, keyframes[0], (0.2, 1.0), 4)
    for t, psi in ((0, 0.2), (0.5, 0.6), (1, 1.0), (1.75, 0.4)):
        assert torch.allclose(path(times(t)), G.mapping.truncate(keyframes[:1], psi, 4), atol=1e-6)
    assert torch.equal(path(times(1))[0], keyframes[0])


def test_style_sweep(keyframes):
    path = style_sweep(keyframes, [1, 4])
    for t in (0.0, 0.5, 3.0, 4.9):
        ws, linear_ws = path(times(t))[0], linear(keyframes)(times(t))[0]
        assert torch.equal(ws[[0, 2, 3, 5]], keyframes[0, [0, 2, 3, 5]])
        assert torch.allclose(ws[[1, 4]], linear_ws[[1, 4]])


def test_frames_are_ordered_cell_by_cell(keyframes):
    a, b = linear(keyframes), linear(keyframes + 100)
    frames = Frames([a, b], frame_times(5, 3, True))
    assert len(frames) == 30
    whole = frames[0:30]
    assert torch.equal(whole[0::2], a(frames.times)) and torch.equal(whole[1::2], b(frames.times))
    assert torch.equal(torch.cat([frames[i : i + 7] for i in range(0, 30, 7)]), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_has_no_jump_and_no_repeated_frame(G, kind):
    """The step over the seam is like the others, the same on a path of constant speed; and no step is zero."""
    plan = video(G, kind=kind, steps=32, cells=3 if kind == "trunc" else None)
    ws = plan.ws[0 : len(plan.ws)].unflatten(0, (plan.frames, -1))
    assert plan.frames == (64 if kind == "trunc" else 96)
    step = (ws - ws.roll(-1, 0)).double().square().mean((1, 2, 3)).sqrt()
    assert step.min() > 1e-3 and step[-1] < 1.2 * step[[0, -2]].max()
    assert len({w.numpy().tobytes() for w in ws[: plan.frames // 2]}) == plan.frames // 2


@pytest.mark.parametrize("kind", KINDS)
def test_without_loop_both_ends_are_included(G, kind):
    plan = video(G, items=[5, 6], kind=kind, loop=False, styles=range(6), cells=2 if kind == "trunc" else None)
    ends = map_seeds(G, [5, 6], SamplingOptions())
    assert plan.frames == 5
    if kind == "trunc":
        assert torch.equal(plan.ws[8:10], ends) and torch.equal(plan.ws[0:1], plan.ws[1:2])
    else:
        assert torch.allclose(torch.cat([plan.ws[0:1], plan.ws[4:5]]), ends, atol=1e-5)


def test_keyframes_are_assigned_to_cells_in_turn(G):
    plan = video(G, items=range(6), kind="linear", cells=3)
    assert plan.keyframes == [["0", "3"], ["1", "4"], ["2", "5"]] and plan.frames == 8
    assert torch.allclose(plan.ws[0:3], map_seeds(G, [0, 1, 2], SamplingOptions()), atol=1e-6)
    assert torch.allclose(plan.ws[12:15], map_seeds(G, [3, 4, 5], SamplingOptions()), atol=1e-6)


def test_default_number_of_keyframes(G):
    counts = {}
    for kind in ("spline", "trunc"):
        for cells in (None, 2):
            plan = plan_video(G, None, SamplingOptions(), kind, cells=cells)
            counts[kind, cells] = [len(cell) for cell in plan.keyframes]
    assert counts == {
        ("spline", None): [6],
        ("spline", 2): [6, 6],
        ("trunc", None): [1] * 6,
        ("trunc", 2): [1, 1],
    }


@pytest.mark.parametrize(
    ("items", "kind", "cells", "words"),
    [
        ([7], "spline", None, "One keyframe"),
        ([7], "mix", None, "One keyframe"),
        (range(5), "linear", 2, "5 keyframes"),
        (range(3), "slerp", 3, "two or more"),
        (range(6), "trunc", 4, "one keyframe each"),
        (["w.npz", 3], "slerp", None, "needs seeds, not files .* w.npz"),
    ],
)
def test_invalid_keyframes(G, items, kind, cells, words):
    with pytest.raises(SganError, match=words) as e:
        video(G, items, kind, cells=cells)
    assert e.value.hint


def test_trunc_conflicts_with_a_truncation_sweep(G):
    with pytest.raises(SganError, match="itself") as e:
        video(G, kind="trunc", options=SamplingOptions(trunc=0.7))
    assert "--sweep" in e.value.hint


def test_files_and_seeds_are_combined(G, tmp_path):
    ws = map_seeds(G, [8, 9], SamplingOptions())
    save_latents(tmp_path / "w.npz", ws)
    plan = video(G, [str(tmp_path / "w.npz"), 3])
    assert plan.keyframes == [["w-0", "w-1", "3"]] and torch.equal(plan.ws[0:1], ws[:1]) and plan.noise is None


def test_noise_is_interpolated_between_files(G, tmp_path):
    ws = map_seeds(G, [8, 9], SamplingOptions())
    for name, value in (("a", 2), ("b", 4)):
        save_latents(tmp_path / f"{name}.npz", ws[:1], noise=noise_for(G, value))
    items = [str(tmp_path / f"{name}.npz") for name in "ab"]
    plan = video(G, items, "linear", loop=False)
    for maps in plan.noise:
        assert maps[0:5][:, 0, 0, 0].tolist() == [2, 2.5, 3, 3.5, 4]
    assert all((maps[3:4] == 2).all() for maps in video(G, items, "mix").noise), "noise of the first keyframe"
    generated = images(video(G, [items[0], items[0]], "linear"))
    assert (generated == generated[:1]).all(), "equal noise stays constant"


@pytest.mark.parametrize("noise_mode", ["const", "none"])
@pytest.mark.parametrize("kind", ["spline", "linear", "slerp", "mix"])
def test_constant_latents_give_constant_images(G, noise_mode, kind):
    options = SamplingOptions(noise_mode=noise_mode, batch=1)
    generated = images(video(G, [3, 3], kind), options)
    assert (generated == generated[:1]).all()


def test_results_are_reproducible(G):
    for kind in KINDS:
        assert torch.equal(images(video(G, kind=kind)), images(video(G, kind=kind)))


def test_latents_do_not_depend_on_the_batch(G):
    for kind in KINDS:
        plan = video(G, kind=kind)
        alone = torch.cat([plan.ws[i : i + 1] for i in range(len(plan.ws))])
        assert torch.equal(plan.ws[0 : len(plan.ws)], alone)
        assert math.prod(alone.shape[1:]) == 6 * 8
