"""Augmentations: distributions of their parameters, and their effect on images."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli.training.augment import PIPES, Augment, color, diffaug, geometry, image
from stylegan_cli.training.augment.parameters import TABLE, Parameters

ADAPTIVE = [name for name in PIPES if name != "diffaug"]
SIZES = [(3, 16, 16), (1, 24, 48), (4, 8, 8), (3, 32, 16)]
NUM_SAMPLES = 20000


class Fixed(dict):
    """Parameters with fixed values, 0 by default: Fixed(n, hue=1.0)."""

    def __init__(self, n, dtype=torch.float64, **values):
        for name, (count, _, _) in TABLE.items():
            value = values.pop(name.replace(" ", "_"), 0.0)
            value = torch.as_tensor(value, dtype=dtype)
            self[name] = value.expand(n, count) if count > 1 else value.expand(n)
        assert not values


def noise(n, c, h, w, dtype=torch.float64):
    return torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(n + h), dtype=torch.float64).to(dtype)


def run(pipe, images, p=1.0, seed=0, purpose="d", start=0):
    index = torch.arange(start, start + len(images))
    return Augment(pipe, seed)(images, torch.tensor(p), purpose, index)


@pytest.fixture(scope="module")
def params():
    return Parameters(0, "d", torch.arange(NUM_SAMPLES), torch.tensor(0.3), torch.float64)


def close(value, expected, spread):
    """Whether a mean of NUM_SAMPLES values is within 4.5 standard deviations."""
    return abs(float(value) - expected) < 4.5 * spread / math.sqrt(NUM_SAMPLES)


# ----------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize("name", TABLE)
def test_distribution(params, name):
    count, distribution, strength = TABLE[name]
    values = params[name].reshape(NUM_SAMPLES, -1)
    on = values[:, 0] != 0
    probability = 1 - math.sqrt(0.7) if name.startswith("rotate") else 0.3
    assert torch.equal(values != 0, on[:, None].expand(-1, count))  # all of its values or none
    assert close(on.double().mean(), probability, 0.5)
    x = values[on] / strength
    second, fourth = (1, 3) if distribution == "normal" else (1 / 3, 1 / 5)
    assert abs(x.mean()) < 0.06 and abs(x.square().mean() - second) < 0.06
    assert abs(x.pow(4).mean() - fourth) < (0.6 if distribution == "normal" else 0.02)
    assert distribution == "normal" or x.abs().max() <= 1


def test_strengths_of_the_paper():
    """Karras et al. 2020, appendix B; logarithms to base 2."""
    normal = {name: strength for name, (_, distribution, strength) in TABLE.items() if distribution == "normal"}
    bands = {f"band {i}": 1 for i in range(4)}
    colors = {"brightness": 0.2, "contrast": 0.5, "saturation": 1}
    assert normal == {"scale": 0.2, "stretch": 0.2, "glide": 0.125, "noise": 0.1, **colors, **bands}
    assert TABLE["shift"][2] == 0.125
    assert all(TABLE[name][2] == math.pi for name in ("rotate before", "rotate after", "hue"))


def test_probability_of_any_rotation(params):
    either = (params["rotate before"] != 0) | (params["rotate after"] != 0)
    assert close(either.double().mean(), 0.3, 0.5)


def test_transformations_are_independent(params):
    on = torch.stack([params[name].reshape(NUM_SAMPLES, -1)[:, 0] != 0 for name in TABLE]).double()
    off_diagonal = torch.corrcoef(on) - torch.eye(len(TABLE))
    assert off_diagonal.abs().max() < 4.5 / math.sqrt(NUM_SAMPLES)


def test_probabilities_0_and_1():
    index = torch.arange(NUM_SAMPLES)
    for p in (0.0, 1.0):
        params = Parameters(0, "d", index, torch.tensor(p), torch.float32)
        assert all(((params[name] != 0) == bool(p)).all() for name in TABLE)


@pytest.mark.parametrize(("side", "limit"), [(64, 8), (24, 3), (8, 1)])
def test_shifts_are_whole_pixels_and_uniform(params, side, limit):
    """Measured in an image of coordinates. The outermost shifts are half as likely, because of rounding."""
    shifts = params["shift"][params["shift"][:, 0] != 0][:4000]
    samples = torch.arange(side).double().expand(len(shifts), 1, 4, side)
    moved = geometry.transform(samples, Fixed(len(shifts), shift=shifts), blit=True, general=False)
    shift = side // 2 - moved[:, 0, 2, side // 2]
    assert torch.equal(shift, shift.round()) and shift.abs().max() <= limit
    counts = torch.bincount((shift + limit).long(), minlength=2 * limit + 1).double()
    expected = torch.full_like(counts, 1 / (2 * limit))
    expected[[0, -1]] /= 2
    assert (counts / len(shift) - expected).abs().max() < 4.5 * math.sqrt(0.25 / len(shift))


# ------------------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pipe", ADAPTIVE)
def test_probability_0_changes_nothing(pipe, size, dtype):
    x = noise(3, *size, dtype=dtype)
    assert torch.equal(run(pipe, x, p=0.0), x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pipe", PIPES)
def test_images_do_not_depend_on_their_batch(pipe, size):
    x = noise(8, *size)
    batch = run(pipe, x, p=0.7)
    halves = torch.cat([run(pipe, x[:4], p=0.7), run(pipe, x[4:], p=0.7, start=4)])
    assert batch.shape == x.shape and batch.isfinite().all()
    assert torch.allclose(batch, halves, rtol=0, atol=1e-12)
    assert not torch.allclose(batch, x)


@pytest.mark.parametrize("pipe", PIPES)
def test_each_purpose_has_its_own_random_numbers(pipe):
    x = noise(1, 3, 16, 16).expand(6, -1, -1, -1)
    once = run(pipe, x)
    assert torch.equal(run(pipe, x), once)
    others = [run(pipe, x, purpose="g"), run(pipe, x, seed=1), run(pipe, x, start=6)]
    assert all(not torch.allclose(other, once) for other in others)
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(once, 2)) or pipe == "blit"


@pytest.mark.parametrize("pipe", PIPES)
def test_single_precision(pipe):
    x = noise(8, 3, 24, 16)
    assert torch.allclose(run(pipe, x.float()).double(), run(pipe, x), rtol=0, atol=2e-3)


@pytest.mark.parametrize("pipe", PIPES)
def test_there_is_no_synchronization(pipe):
    """Tensors on the device 'meta' have no values: reading one, or a shape that depends on one, fails."""
    x, index = torch.empty(4, 3, 16, 24, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    x.requires_grad_(True)
    y = Augment(pipe, 0)(x, torch.empty([], device="meta"), "d", index)
    assert y.shape == x.shape
    y.sum().backward()


@pytest.mark.parametrize(("pipe", "size"), [("bgcfnc", (3, 5, 4)), ("bgcfnc", (4, 4, 4)), ("diffaug", (3, 4, 5))])
def test_derivatives(pipe, size):
    x = noise(2, *size).requires_grad_(True)
    assert gradcheck(lambda x: run(pipe, x), (x,), fast_mode=True)
    assert gradgradcheck(lambda x: run(pipe, x) + x.pow(3), (x,), fast_mode=True)


def test_second_derivatives_for_r1():
    """Compare the gradient of a squared gradient with plain operations: a pipeline is an affine map A x + b."""
    x = noise(2, 1, 4, 4).requires_grad_(True)

    def penalty(y):
        (g,) = torch.autograd.grad((y.pow(3) + y.flatten(1).prod(1)[:, None, None, None]).sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    with torch.no_grad():
        b = run("bgcfnc", torch.zeros(2, 1, 4, 4).double())
        units = torch.eye(16).double().view(16, 1, 1, 4, 4).expand(-1, 2, -1, -1, -1)
        columns = torch.stack([run("bgcfnc", unit) - b for unit in units])  # [16, 2, 1, 4, 4]
    y = torch.einsum("ni,in...->n...", x.flatten(1), columns) + b
    assert torch.allclose(run("bgcfnc", x), y, atol=1e-10)
    assert torch.allclose(penalty(run("bgcfnc", x)), penalty(y), rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("pipe", PIPES)
def test_a_cuda_graph_equals_the_cpu(pipe):
    """Images and gradients of a captured pipeline, after p has changed."""
    x, dy = noise(4, 3, 24, 16).float(), noise(4, 3, 16, 24).mT.float()
    index = torch.arange(4)
    inputs = x.cuda().requires_grad_(True), torch.zeros([], device="cuda"), index.cuda(), dy.cuda()

    def both(x, p, index, dy):
        y = Augment(pipe, 0)(x, p, "d", index)
        return y.detach(), torch.autograd.grad(y, x, dy)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        both(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both(*inputs)
    for p in (0.0, 0.8):
        inputs[1].fill_(p)
        graph.replay()
        for a, b in zip(captured, both(*inputs)):
            assert torch.allclose(a, b, rtol=0, atol=1e-4)
        for a, b in zip(captured, both(x.requires_grad_(True), torch.tensor(p), index, dy)):
            # A position whose last bit differs can be rounded to another pixel.
            assert ((a.cpu() - b).abs() <= 2e-3).float().mean() > 0.95


def test_names():
    assert " ".join(PIPES) == "blit geom color filter noise cutout bg bgc bgcf bgcfn bgcfnc modern diffaug"
    assert PIPES["bgc"] == ("blit", "geom", "color")
    with pytest.raises(ValueError, match="no augmentation pipeline 'bgd'. Did you mean 'bg"):
        Augment("bgd", 0)


def test_the_modern_pipeline_has_color_half_as_often():
    """And neither filters nor noise (Huang et al. 2024); all other parameters are those of bgc with a cutout."""
    index = torch.arange(20000)
    often, rare = (Parameters(0, "x", index, torch.tensor(0.6), torch.float32, rare) for rare in (False, True))
    for name in ("brightness", "contrast", "luma", "hue", "saturation"):
        assert (rare[name] != 0).float().mean().item() == pytest.approx(0.3, abs=0.012)
        assert ((rare[name] == 0) | (rare[name] == often[name])).all()
    for name in ("flip", "shift", "scale", "glide", "cutout"):
        assert torch.equal(rare[name], often[name])
    x = noise(6, 3, 16, 16)
    seen = Augment("modern", 0)(x, torch.tensor(1.0), "x", torch.arange(6))
    assert all(not torch.equal(a, b) for a, b in zip(x, seen))
    assert (seen == 0).all(1).flatten(1).float().mean(1).amax() > 0.1


# ---------------------------------------------------------------------------------------------- geometry


def test_the_wavelet_is_the_symlet():
    """Orthogonal to its even shifts, six vanishing moments, and the least asymmetric of these filters."""
    f = np.array(geometry.SYM6)
    assert abs(f.sum() - math.sqrt(2)) < 1e-12
    for k in range(6):
        assert abs(f[2 * k :] @ f[: 12 - 2 * k] - (k == 0)) < 1e-11
        assert abs(f @ ((-1.0) ** np.arange(12) * np.arange(12.0) ** k)) < 1e-8
    omega = np.linspace(0.05, math.pi / 2, 50)
    phase = np.unwrap(np.angle(np.exp(-1j * np.outer(omega, np.arange(12))) @ f))
    center = f @ np.arange(12) / f.sum()
    assert np.abs(phase + center * omega).max() < 0.45  # nearly a pure delay


def test_images_that_need_no_warp_are_unchanged():
    x = noise(5, 3, 16, 16)
    params = Fixed(
        5, scale=[0, 0.1, 0, 0, 0], rotate_after=[0, 0, 0.1, 0, 0], glide=[[0, 0], [0, 0], [0, 0], [0, 0.1], [0, 0]]
    )
    y = geometry.transform(x, params, blit=True, general=True)
    assert [torch.equal(a, b) for a, b in zip(x, y)] == [True, False, False, False, True]


@pytest.mark.parametrize("size", SIZES)
def test_identity_warp_changes_nothing(size):
    """Up to the borders, for images of noise."""
    x = noise(2, *size)
    identity, zero = torch.eye(2).double().expand(2, 2, 2), torch.zeros(2, 2).double()
    assert torch.allclose(geometry.warp(x, identity, zero), x, rtol=0, atol=1e-6)
    x, identity, zero = x.float(), identity.float(), zero.float()
    assert torch.allclose(geometry.warp(x, identity, zero), x, rtol=0, atol=1e-4)


def test_warp_by_whole_pixels_is_exact():
    """So that it can be part of the warp. Near the border the reflection differs, as the filter is not quite
    symmetric."""
    x = noise(2, 3, 16, 24)
    identity, shift = torch.eye(2).double().expand(2, 2, 2), torch.tensor([[2.0, -1.0], [-3.0, 2.0]]).double()
    difference = (geometry.warp(x, identity, shift) - geometry.copy_pixels(x, identity, shift)).abs()
    assert difference[..., 5:-5, 5:-5].max() < 1e-6 and difference.square().mean().sqrt() < 0.05


def waves(x, y, h, w):  # coordinates in pixels, from the center
    """A smooth image that continues as its reflection outside its border."""
    u, v = (x + (w - 1) / 2) * math.pi / (w - 1), (y + (h - 1) / 2) * math.pi / (h - 1)
    return np.stack([np.cos(2 * u) * np.cos(v), np.cos(u) * np.cos(2 * v), np.cos(2 * u) + np.cos(v) * np.cos(u)])


def pixels(h, w):
    return np.meshgrid(np.arange(w) - (w - 1) / 2, np.arange(h) - (h - 1) / 2)


def matrix(a=1.0, b=0.0, c=0.0, d=1.0, x=0.0, y=0.0):
    return np.array([[a, b, x], [c, d, y], [0, 0, 1]])


def rotation(angle):
    return matrix(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))


TRANSFORMS = {
    "scale": {"scale": -0.7},
    "rotate": {"rotate_before": 0.6},
    "stretch": {"stretch": 0.5},
    "glide": {"glide": [0.13, -0.22]},
    "far out": {"glide": [1.3, 0.9], "scale": -0.5},
    "general": {"scale": 0.2, "rotate_before": 2.0, "stretch": -0.3, "rotate_after": -0.7, "glide": [0.1, 0.05]},
    "all": {"flip": 0.5, "turn": 0.3, "shift": [0.1, -0.06], "scale": -0.2, "rotate_before": 0.5}
    | {"stretch": 0.3, "rotate_after": -1.2, "glide": [-0.07, 0.11]},
}


@pytest.mark.parametrize(("h", "w"), [(48, 48), (40, 64)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_match_a_formula(name, h, w):
    """Multiply the paper's transformations in its order, invert them, and evaluate the formula of the image."""
    values = {**{key: [0.0, 0.0] for key in ("shift", "glide")}, **TRANSFORMS[name]}
    quarters = (1 if h == w else 0) if "turn" in values else 0
    steps = [
        matrix(a=-1.0 if values.get("flip", 0) > 0 else 1.0),
        rotation(math.pi / 2 * quarters),
        matrix(x=round(values["shift"][0] * w), y=round(values["shift"][1] * h)),
        matrix(2 ** values.get("scale", 0), d=2 ** values.get("scale", 0)),
        rotation(values.get("rotate_before", 0)),
        matrix(2 ** values.get("stretch", 0), d=2 ** -values.get("stretch", 0)),
        rotation(values.get("rotate_after", 0)),
        matrix(x=values["glide"][0] * w, y=values["glide"][1] * h),
    ]
    forward = np.eye(3)
    for step in steps:
        forward = step @ forward
    x, y = pixels(h, w)
    source = np.einsum("ij,jyx->iyx", np.linalg.inv(forward), np.stack([x, y, np.ones_like(x)]))
    expected = waves(source[0], source[1], h, w)
    samples = torch.from_numpy(waves(x, y, h, w))[None]
    moved = geometry.transform(samples, Fixed(1, **values), blit=True, general=True)[0].numpy()
    assert np.abs(moved - expected).max() < 8e-3
    assert np.sqrt(np.square(moved - expected).mean()) < 2e-3  # a tenth of a pixel would be 0.01


def test_a_shrunk_image_does_not_alias():
    """A checkerboard at half size is gray."""
    x, y = np.indices((32, 32))
    board = torch.from_numpy((-1.0) ** (x + y))[None, None]
    half = geometry.transform(board, Fixed(1, scale=-1.0), blit=False, general=True)
    assert half.abs().max() < 0.2 and half[..., 8:-8, 8:-8].square().mean() < 1e-3


def blits(sample, quarters, flip, x, y):  # [C, H, W]
    sample = np.rot90(sample[..., ::-1] if flip else sample, -quarters, (1, 2))
    sample = np.pad(sample, ((0, 0), (2, 2), (2, 2)), "reflect")
    h, w = sample.shape[1:]
    return sample[:, 2 - y : h - 2 - y, 2 - x : w - 2 - x]


@pytest.mark.parametrize(("h", "w"), [(8, 8), (8, 16)])
def test_blits_are_copies(h, w):
    """Flips and turns are equally likely, and every image is one of the possible copies."""
    n = 400
    x = torch.arange(3 * h * w).float().view(1, 3, h, w).expand(n, -1, -1, -1)
    quarters = range(4) if h == w else (0, 2)
    shifts = [range(-(side // 8), side // 8 + 1) for side in (w, h)]
    possible = {
        blits(x[0].numpy(), q, f, sx, sy).tobytes(): (q, f)
        for q, f, sx, sy in itertools.product(quarters, (False, True), *shifts)
    }
    observed = [possible[sample.numpy().tobytes()] for sample in run("blit", x)]
    kinds = len(quarters) * 2
    counts = [observed.count(kind) for kind in itertools.product(quarters, (False, True))]
    assert all(abs(count - n / kinds) < 4.5 * math.sqrt(n / kinds) for count in counts)


@pytest.mark.parametrize("pipe", ["bg", "bgc"])
def test_blits_are_copies_with_the_warp(pipe):
    """A flip and a turn only reorder pixels."""
    x = noise(2, 3, 8, 8)
    turned = geometry.transform(x, Fixed(2, flip=0.1, turn=0.6), blit=True, general="geom" in PIPES[pipe])
    assert np.array_equal(turned.numpy(), np.stack([blits(sample, 2, True, 0, 0) for sample in x.numpy()]))


@pytest.mark.parametrize(("h", "w", "margin"), [(8, 8, 6), (8, 5, 21), (3, 2, 7)])
def test_mirror_padding_of_any_size(h, w, margin):
    x = noise(1, 2, h, w)
    wide = np.pad(x.numpy(), ((0, 0), (0, 0), (margin, margin), (margin, margin)), "reflect")
    assert np.array_equal(geometry.mirror_pad(x, margin).numpy(), wide)


# ------------------------------------------------------------------------------------------------ colors


def recolor(x, **values):
    return color.recolor(x, Fixed(len(x), **values))


def test_colors():
    x = noise(2, 3, 4, 5)
    luma = x.mean(1, keepdim=True)
    assert torch.allclose(recolor(x, brightness=0.3), x + 0.3)
    assert torch.allclose(recolor(x, contrast=-1.0), x / 2)
    assert torch.allclose(recolor(x, brightness=0.3, contrast=1.0), 2 * (x + 0.3))
    assert torch.allclose(recolor(x, luma=0.1), x - 2 * luma)  # only the gray axis is inverted
    assert torch.equal(recolor(x, luma=-0.1), x)
    assert torch.allclose(recolor(x, saturation=-60.0), luma.expand_as(x))
    assert torch.allclose(recolor(x, saturation=1.0), luma + 2 * (x - luma))


def test_hue():
    x = noise(2, 3, 4, 5)
    luma, gray = x.mean(1, keepdim=True), x[:, :1].expand_as(x)
    turned = recolor(x, hue=0.7)
    assert torch.allclose(turned.mean(1, keepdim=True), luma)
    assert torch.allclose(turned.square().sum(1), x.square().sum(1))
    assert torch.allclose(recolor(gray, hue=0.7), gray)
    assert torch.allclose(recolor(x, hue=2 * math.pi / 3), x.roll(1, 1))  # red becomes green
    assert torch.allclose(recolor(x, hue=math.pi), 2 * luma - x)


def test_order_of_color_transformations():
    """Multiply brightness, contrast, luma flip, hue and saturation as 4 x 4 matrices."""
    values = {"brightness": 0.2, "contrast": 0.4, "luma": 1.0, "hue": -1.1, "saturation": 0.8}
    v = np.ones(3) / math.sqrt(3)
    gray, cross = np.outer(v, v), np.cross(np.eye(3), v)  # rows e_i x v
    turn = gray + math.cos(-1.1) * (np.eye(3) - gray) + math.sin(-1.1) * cross
    brightness, others = np.eye(4), [np.eye(3) * 2**0.4, np.eye(3) - 2 * gray, turn]
    brightness[:3, 3] = 0.2
    others.append(gray + 2**0.8 * (np.eye(3) - gray))
    product = brightness
    for step in others:
        product = np.block([[step, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]) @ product
    x = noise(2, 3, 4, 5)
    expected = np.einsum("ij,njyx->niyx", product[:3, :3], x.numpy()) + product[:3, 3, None, None]
    assert np.allclose(recolor(x, **values).numpy(), expected)


def test_one_and_four_channels():
    values = {"brightness": 0.2, "contrast": 0.4, "luma": 1.0, "hue": -1.1, "saturation": 0.8}
    x = noise(2, 4, 4, 5)
    four = recolor(x, **values)
    assert torch.equal(four[:, 3], x[:, 3]) and torch.equal(four[:, :3], recolor(x[:, :3], **values))
    one = recolor(x[:, :1], **values)
    assert torch.allclose(one, -(2**0.4) * (x[:, :1] + 0.2))
    assert torch.allclose(one.expand(-1, 3, -1, -1), recolor(x[:, :1].expand(-1, 3, -1, -1), **values))


# ------------------------------------------------------------------------------- bands, noise and cutout


def test_bands_are_octaves_with_the_sum_1():
    bands = np.array(image._BANDS)
    assert bands.shape == (4, 43) and np.array_equal(bands, bands[:, ::-1])
    assert np.array_equal(bands.sum(0), np.eye(43)[21])
    omega = np.linspace(0, math.pi, 512, endpoint=False)
    response = np.cos(np.outer(omega, np.arange(43) - 21)) @ bands.T  # [512, 4], real: no phase
    octave = np.array([64, 128, 256, 512])
    centers = (octave + np.array([0, 64, 128, 256])) // 2
    assert (response[centers, range(4)] > 0.7).all()
    assert np.allclose(response[octave[:3], range(3)], 0.5, atol=0.05)  # two bands overlap at the edges
    energy = np.square(response)
    for band, (start, end) in enumerate(zip((0, *octave[:3]), octave)):
        assert energy[start:end, band].sum() / energy[:, band].sum() > 0.75


def test_band_gains_preserve_the_expected_power():
    power = np.array([10, 1, 1, 1]) / 13
    for band in range(4):
        gains = image.band_gains(Fixed(1, **{f"band_{band}": 1.5}))[0].numpy()
        assert np.square(gains) @ power == pytest.approx(1)
        assert gains[band] / np.delete(gains, band) == pytest.approx([2**1.5] * 3)
    both = image.band_gains(Fixed(1, band_0=-1.0, band_3=2.0))[0].numpy()
    norms = math.sqrt(power @ [0.25, 1, 1, 1]) * math.sqrt(power @ [1, 1, 1, 16])
    assert both == pytest.approx(np.array([0.5, 1, 1, 4]) / norms)


@pytest.mark.parametrize("size", [(3, 32, 48), (1, 8, 8)])
def test_each_image_is_filtered_by_its_own_gains(size):
    c, h, w = size
    x = noise(3, c, h, w)
    params = Fixed(3, band_0=torch.tensor([0.5, 0, -1]), band_2=torch.tensor([0, 1.0, 2.0]))
    taps = image.band_gains(params).numpy() @ np.array(image._BANDS)
    wide = np.pad(x.numpy(), ((0, 0), (0, 0), (21, 21), (21, 21)), "reflect")
    for sample, result, f in zip(wide, image.amplify_bands(x, params).numpy(), taps):
        rows = np.apply_along_axis(np.convolve, 1, sample, f, "valid")
        assert np.allclose(result, np.apply_along_axis(np.convolve, 2, rows, f, "valid"))


def test_noise():
    x = torch.zeros(64, 3, 24, 16)
    y = run("noise", x)
    sigma = Parameters(0, "d", torch.arange(64), torch.tensor(1.0), torch.float32)["noise"].abs()
    z = y / sigma[:, None, None, None]
    assert abs(z.mean()) < 0.02 and abs(z.square().mean() - 1) < 0.02 and abs(z.pow(4).mean() - 3) < 0.1
    assert abs((z[:, :, 1:] * z[:, :, :-1]).mean()) < 0.02 and abs((z[:, 1:] * z[:, :-1]).mean()) < 0.02
    assert torch.allclose(run("noise", x + 5), y + 5)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (12, 20)])
def test_cutout(h, w):
    """A window of half the sides around a uniform center, clipped at the edges."""
    n = 2000
    is_cut = run("cutout", torch.ones(n, 2, h, w), p=0.5) == 0
    assert torch.equal(is_cut[:, 0], is_cut[:, 1])
    is_cut = is_cut[is_cut.flatten(1).any(1), 0]
    assert abs(len(is_cut) - n / 2) < 4.5 * math.sqrt(n / 4)
    rows, columns = is_cut.any(2), is_cut.any(1)
    assert torch.equal(is_cut, rows[:, :, None] & columns[:, None, :])
    for inside, side in ((rows, h), (columns, w)):
        assert (inside[:, 1:] != inside[:, :-1]).sum(1).max() <= 2  # contiguous
        unclipped = ~inside[:, 0] & ~inside[:, -1]
        assert (inside[unclipped].sum(1) - side // 2).abs().max() <= 1
        assert inside.double().mean() == pytest.approx(7 / 16, abs=0.04)  # 1/2, minus clipping at the edges


# --------------------------------------------------------------------------------------------- DiffAugment


def test_colors_of_diffaugment():
    """Brightness, then saturation, then contrast."""
    x = noise(3, 4, 4, 5)
    u = torch.tensor([[0.9, 0.2, 0.7], [0.5, 0.5, 0.5], [0.1, 0.0, 0.0]]).double()
    y = diffaug._recolor(x, *u.unbind(1))
    for sample, result, (b, s, c) in zip(x, y, u):
        rgb = sample[:3] + (b - 0.5)
        gray = rgb.mean(0, keepdim=True)
        rgb = (rgb - gray) * (2 * s) + gray
        assert torch.allclose(result[:3], (rgb - rgb.mean()) * (c + 0.5) + rgb.mean())
        assert torch.equal(result[3], sample[3])
    assert torch.allclose(y[1], x[1])


@pytest.mark.parametrize(("h", "w"), [(8, 8), (16, 24)])
def test_translation_and_cutout_of_diffaugment(h, w):
    n = 1000
    u = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    far = torch.full((n,), -9.0)  # no cutout
    x = torch.arange(1.0, 1 + h * w).view(1, 1, h, w).expand(n, -1, -1, -1)
    moved = diffaug._shift_and_cut(x, u[:, 0], u[:, 1], far, far)
    seen = []
    for sample in moved[:, 0].numpy():
        top = sample[h // 2, w // 2] - 1
        sx, sy = int(w // 2 - top % w), int(h // 2 - top // w)
        seen.append((sx, sy))
        wide = np.pad(x[0, 0].numpy(), ((h, h), (w, w)))
        assert np.array_equal(sample, wide[h - sy : 2 * h - sy, w - sx : 2 * w - sx])
    for axis, side in enumerate((w, h)):
        counts = np.bincount([s[axis] + side // 8 for s in seen], minlength=2 * (side // 8) + 1)
        assert len(counts) == 2 * (side // 8) + 1
        assert np.abs(counts - n / len(counts)).max() < 4.5 * math.sqrt(n / len(counts))
    center = torch.full((n,), 0.5)
    cut = diffaug._shift_and_cut(x, center, center, u[:, 2], u[:, 3])
    assert ((cut == x) | (cut == 0)).all() and 0.1 < (cut == 0).float().mean() < 0.3


def test_diffaugment_ignores_p():
    x = noise(4, 3, 16, 16)
    assert torch.equal(run("diffaug", x, p=0.0), run("diffaug", x, p=1.0))
    assert not any(torch.equal(a, b) for a, b in zip(x, run("diffaug", x, p=0.0)))
