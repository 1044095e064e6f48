"""Paths through the latent space, and the frames that are cut from them."""

import math

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
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


def small_model(**changes):
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2, **changes)
    G = build_generator(config).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    for row in G.layers:
        if row.noise:
            G.get_submodule(row.name).noise_strength.fill_(0.3)
    return G


@pytest.fixture(scope="module")
def G():
    return small_model()


@pytest.fixture
def keys():
    return torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(1))


def times(*t):
    return torch.tensor(t, dtype=torch.float64)


def noise_for(G, value):
    return {row.name: torch.full((1, 1, row.height, row.width), float(value)) for row in G.layers if row.noise}


def video(G, items=(0, 1, 2), kind="spline", how=None, **options):
    return plan_video(G, list(items), how or SamplingOptions(), kind, **{"steps": 4, **options})


def images(video, how=None):
    how = how or SamplingOptions()
    drawn = generate_images(video.G, lambda i, j: video.ws[i:j], range(len(video.ws)), how, noise=video.noise)
    return torch.stack(list(drawn))


def test_slerp_goes_along_the_sphere_at_even_speed():
    a, b = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    points = [slerp(a, b, torch.full([5, 1], t).double()) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert torch.allclose(points[0], a / a.norm(dim=1, keepdim=True) * 4, atol=1e-5)
    assert torch.allclose(points[4], b / b.norm(dim=1, keepdim=True) * 4, atol=1e-5)
    angles = [torch.acos((p * q).sum(1) / 16) for p, q in zip(points, points[1:])]
    assert all(torch.allclose(angle, angles[0], atol=1e-5) for angle in angles)
    assert torch.allclose(sum(angles), torch.acos((points[0] * points[4]).sum(1) / 16), atol=1e-5)


def test_slerp_to_itself_and_to_the_other_side():
    a = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    there = torch.nn.functional.normalize(a, dim=1) * 4
    for t in (0.0, 0.3, 1.0):
        assert torch.allclose(slerp(a, a, torch.full([3, 1], t).double()), there, atol=1e-5)
        assert slerp(a, -a, torch.full([3, 1], t).double()).isfinite().all()


def test_lerp():
    a, b = torch.randn(2, 5, 3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lerp(a, b, torch.zeros(5, 1, 1).double()), a)
    assert torch.equal(lerp(a, b, torch.ones(5, 1, 1).double()), b)


@pytest.mark.parametrize("keys", [2, 3, 7])
@pytest.mark.parametrize("steps", [1, 4, 45])
def test_when_frames_are(keys, steps):
    once, loop = frame_times(keys, steps, False), frame_times(keys, steps, True)
    assert len(once) == (keys - 1) * steps + 1 and len(loop) == keys * steps
    assert once[::steps].tolist() == list(range(keys)) == loop[::steps].tolist()
    assert loop[-1] == keys - 1 / steps, "one step before the first frame comes again"


@pytest.mark.parametrize("loop", [True, False])
def test_paths_pass_through_their_keys_to_the_bit(keys, loop):
    t = torch.arange(5).double()
    for path in (linear(keys), spline(keys, loop)):
        assert torch.equal(path(t), keys)
        if loop:
            assert torch.equal(path(t + 5), keys)


def test_linear_is_straight(keys):
    path = linear(keys)
    assert torch.allclose(path(times(1.25))[0], 0.75 * keys[1] + 0.25 * keys[2])
    assert torch.allclose(path(times(4.5))[0], (keys[4] + keys[0]) / 2)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("loop", [True, False])
def test_the_spline_is_the_one(keys, count, loop):
    """Periodic or natural: its second derivatives m solve m[i-1] + 4 m[i] + m[i+1] = 6 (y[i-1] - 2 y[i] + y[i+1])."""
    y = keys[:count].double()
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


def test_the_spline_has_no_corner_anywhere(keys):
    """Value, slope and curvature from the left and from the right of every key, that of the seam too."""
    path, h = spline(keys.double(), True), 1e-3
    for key in range(5):
        left = path(times(key - 2 * h, key - h, key - 1e-12) + 5)
        right = path(times(key + 1e-12, key + h, key + 2 * h))
        assert torch.allclose(left[2], right[0], atol=1e-9)
        slopes = (3 * left[2] - 4 * left[1] + left[0]) / (2 * h), (4 * right[1] - 3 * right[0] - right[2]) / (2 * h)
        assert torch.allclose(*slopes, atol=1e-4)
        bends = [(p[0] - 2 * p[1] + p[2]) / h**2 for p in (left, right)]
        assert torch.allclose(*bends, atol=0.2) and bends[0].abs().max() > 2
    kink = linear(keys.double())(times(-h, 0, h) + 5)
    assert ((kink[0] - 2 * kink[1] + kink[2]) / h).abs().max() > 0.1, "the check sees corners"


def test_one_key_stands_still(keys):
    for path in (linear(keys[:1]), spline(keys[:1], True)):
        assert torch.equal(path(times(0, 0.3, 1.7)), keys[:1].expand(3, -1, -1))


def test_the_sphere_through_the_mapping(G):
    how = SamplingOptions(trunc=0.7, trunc_cutoff=2)
    path = spherical(G, [5, 6], how)
    assert torch.allclose(path(times(0, 1, 2)), map_seeds(G, [5, 6, 5], how), atol=1e-5)
    a, b = latents_from_seeds([5, 6], 8).chunk(2)
    assert torch.allclose(path(times(0.3)), G.mapping(slerp(a, b, times(0.3)[:, None]), None, 0.7, 2), atol=1e-6)


def test_classes_fade():
    G = small_model(c_dim=3)
    path = spherical(G, [1, 2, 3, 4], SamplingOptions())
    assert torch.allclose(path(torch.arange(4).double()), map_seeds(G, [1, 2, 3, 4], SamplingOptions()), atol=1e-5)
    t = torch.linspace(0, 4, 401).double()
    assert (path(t[1:]) - path(t[:-1])).norm(dim=2).max() < 0.2, "no jump from class to class"


def test_truncation_sweep(G, keys):
    path = truncation_sweep(G, keys[0], (0.2, 1.0), 4)
    for t, psi in ((0, 0.2), (0.5, 0.6), (1, 1.0), (1.75, 0.4)):
        assert torch.allclose(path(times(t)), G.mapping.truncate(keys[:1], psi, 4), atol=1e-6)
    assert torch.equal(path(times(1))[0], keys[0])


def test_style_sweep(keys):
    path = style_sweep(keys, [1, 4])
    for t in (0.0, 0.5, 3.0, 4.9):
        ws, way = path(times(t))[0], linear(keys)(times(t))[0]
        assert torch.equal(ws[[0, 2, 3, 5]], keys[0, [0, 2, 3, 5]])
        assert torch.allclose(ws[[1, 4]], way[[1, 4]])


def test_frames_go_cell_by_cell(keys):
    a, b = linear(keys), linear(keys + 100)
    frames = Frames([a, b], frame_times(5, 3, True))
    assert len(frames) == 30
    whole = frames[0:30]
    assert torch.equal(whole[0::2], a(frames.times)) and torch.equal(whole[1::2], b(frames.times))
    assert torch.equal(torch.cat([frames[i : i + 7] for i in range(0, 30, 7)]), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_has_no_jump_and_no_doubled_frame(G, kind):
    """The step over the seam is like the others, on an even path the same; and none is nought."""
    one = video(G, kind=kind, steps=32, cells=3 if kind == "trunc" else None)
    ws = one.ws[0 : len(one.ws)].unflatten(0, (one.frames, -1))
    assert one.frames == (64 if kind == "trunc" else 96)
    step = (ws - ws.roll(-1, 0)).double().square().mean((1, 2, 3)).sqrt()
    assert step.min() > 1e-3 and step[-1] < 1.2 * step[[0, -2]].max()
    assert len({w.numpy().tobytes() for w in ws[: one.frames // 2]}) == one.frames // 2


@pytest.mark.parametrize("kind", KINDS)
def test_once_shows_both_ends(G, kind):
    one = video(G, items=[5, 6], kind=kind, loop=False, styles=range(6), cells=2 if kind == "trunc" else None)
    ends = map_seeds(G, [5, 6], SamplingOptions())
    assert one.frames == 5
    if kind == "trunc":
        assert torch.equal(one.ws[8:10], ends) and torch.equal(one.ws[0:1], one.ws[1:2])
    else:
        assert torch.allclose(torch.cat([one.ws[0:1], one.ws[4:5]]), ends, atol=1e-5)


def test_keys_are_dealt_out_in_turn(G):
    one = video(G, items=range(6), kind="linear", cells=3)
    assert one.keys == [["0", "3"], ["1", "4"], ["2", "5"]] and one.frames == 8
    assert torch.allclose(one.ws[0:3], map_seeds(G, [0, 1, 2], SamplingOptions()), atol=1e-6)
    assert torch.allclose(one.ws[12:15], map_seeds(G, [3, 4, 5], SamplingOptions()), atol=1e-6)


def test_without_keys_there_are_six_for_each_cell(G):
    counts = {}
    for kind in ("spline", "trunc"):
        for cells in (None, 2):
            one = plan_video(G, None, SamplingOptions(), kind, cells=cells)
            counts[kind, cells] = [len(hand) for hand in one.keys]
    assert counts == {
        ("spline", None): [6],
        ("spline", 2): [6, 6],
        ("trunc", None): [1] * 6,
        ("trunc", 2): [1, 1],
    }


@pytest.mark.parametrize(
    ("items", "kind", "cells", "words"),
    [
        ([7], "spline", None, "only one"),
        ([7], "mix", None, "only one"),
        (range(5), "linear", 2, "5 keys"),
        (range(3), "slerp", 3, "two or more"),
        (range(6), "trunc", 4, "one each"),
        (["w.npz", 3], "slerp", None, "no z"),
    ],
)
def test_refused(G, items, kind, cells, words):
    with pytest.raises(SganError, match=words) as e:
        video(G, items, kind, cells=cells)
    assert e.value.hint


def test_truncation_is_not_asked_for_twice(G):
    with pytest.raises(SganError, match="itself") as e:
        video(G, kind="trunc", how=SamplingOptions(trunc=0.7))
    assert "--sweep" in e.value.hint


def test_files_go_with_seeds(G, tmp_path):
    ws = map_seeds(G, [8, 9], SamplingOptions())
    save_latents(tmp_path / "w.npz", ws)
    one = video(G, [str(tmp_path / "w.npz"), 3])
    assert one.keys == [["w-0", "w-1", "3"]] and torch.equal(one.ws[0:1], ws[:1]) and one.noise is None


def test_noise_fades_from_file_to_file(G, tmp_path):
    ws = map_seeds(G, [8, 9], SamplingOptions())
    for name, value in (("a", 2), ("b", 4)):
        save_latents(tmp_path / f"{name}.npz", ws[:1], noise=noise_for(G, value))
    items = [str(tmp_path / f"{name}.npz") for name in "ab"]
    one = video(G, items, "linear", loop=False)
    for maps in one.noise:
        assert maps[0:5][:, 0, 0, 0].tolist() == [2, 2.5, 3, 3.5, 4]
    assert all((maps[3:4] == 2).all() for maps in video(G, items, "mix").noise), "the first one's"
    drawn = images(video(G, [items[0], items[0]], "linear"))
    assert (drawn == drawn[:1]).all(), "the same noise in both stays as it is"


@pytest.mark.parametrize("noise_mode", ["const", "none"])
@pytest.mark.parametrize("kind", ["spline", "linear", "slerp", "mix"])
def test_nothing_moves_where_the_latents_stand_still(G, noise_mode, kind):
    how = SamplingOptions(noise_mode=noise_mode, batch=1)
    drawn = images(video(G, [3, 3], kind), how)
    assert (drawn == drawn[:1]).all()


def test_the_same_bits_again(G):
    for kind in KINDS:
        assert torch.equal(images(video(G, kind=kind)), images(video(G, kind=kind)))


def test_a_batch_does_not_change_the_latents(G):
    for kind in KINDS:
        one = video(G, kind=kind)
        alone = torch.cat([one.ws[i : i + 1] for i in range(len(one.ws))])
        assert torch.equal(one.ws[0 : len(one.ws)], alone)
        assert math.prod(alone.shape[1:]) == 6 * 8
