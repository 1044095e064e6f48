"""Equivariance metrics: the resampling compared with plain definitions in float64, and generators whose equivariance is
known."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from stylegan_cli.errors import SganError
from stylegan_cli.metrics.equivariance import peak_signal_to_noise
from stylegan_cli.metrics.measure import TrainingMetrics, compare_images, measure
from stylegan_cli.metrics.motions import MotionErrors, compare, input_transform, squared_errors
from stylegan_cli.metrics.registry import METRICS, resolve
from stylegan_cli.metrics.resampling import limit_to_rotation, rotate, rotation_filter, shift, shift_by_fraction
from stylegan_cli.models.label_space import LabelSpace
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.runs import unit_of
from stylegan_cli.runs.summary import best_of

CPU = torch.device("cpu")
ANGLES = (0.0, 0.3, -2.0, math.pi / 2, 3.1)


def images(*size, n=2, seed=0):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------- plain definitions


def lanczos(x):
    return np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)


def shifted_by_definition(image, distance):  # [C, H, W], (x, y) -> image and mask
    mask = np.ones(image.shape[1:])
    for axis, d in ((2, distance[0]), (1, distance[1])):
        size, i = image.shape[axis], math.floor(d)
        taps = np.array([lanczos(k - (d - i)) for k in range(-2, 4)])
        taps /= taps.sum()
        out = np.zeros_like(image)
        for p, (k, tap) in itertools.product(range(size), zip(range(-2, 4), taps)):
            if 0 <= p - i - k < size:
                np.moveaxis(out, axis, 0)[p] += tap * np.moveaxis(image, axis, 0)[p - i - k]
        image = out
        inside = [max(i + 3, 0) <= p < size + min(i - 2, 0) for p in range(size)]
        mask = mask * (np.array(inside)[:, None] if axis == 1 else np.array(inside))
    return image, mask


def filter_by_definition(angle, up, points):
    """Sums over the periodic grid, at some points (row, column) of the filter before its phases are normalized."""
    c, s = math.cos(angle), math.sin(angle)
    reach, n = 64 * up - 1, 128 * up - 1
    t = np.arange(-reach, reach + 1) / up

    def window(v):
        return np.sinc(v / 3) * (np.abs(v) < 3)

    x, y = t[None, :], t[:, None]
    qx, qy = c * x + s * y, -s * x + c * y
    values = []
    for row, column in points:
        rows, columns = (row - np.arange(-reach, reach + 1)), (column - np.arange(-reach, reach + 1))
        wrapped = np.ix_((rows + reach) % n, (columns + reach) % n)
        band = (np.sinc(x) * np.sinc(y) * (np.sinc(qx) * np.sinc(qy))[wrapped]).sum()
        values.append(band * (window(x) * window(y) * (window(qx) * window(qy))[wrapped]).sum())
    return np.array(values)


def normalized(kernel, up):
    """Divide each phase by its sum and by up²."""
    padded = np.pad(kernel, ((0, 1), (0, 1)))
    for i, j in itertools.product(range(up), repeat=2):
        padded[i::up, j::up] /= padded[i::up, j::up].sum() * up**2
    return padded[:-1, :-1]


def rotated_by_definition(image, angle):  # [C, H, W] -> image and mask
    """Zero insertion, filter, bilinear interpolation."""
    _, h, w = image.shape
    kernel = rotation_filter(torch.tensor(angle, dtype=torch.float64), 4).numpy() * 16
    large = np.zeros((3, 4 * h, 4 * w))
    large[:, ::4, ::4] = image
    large = np.pad(large, ((0, 0), (48, 44), (48, 44)))
    large = np.stack([signal.fftconvolve(x, kernel, "valid") for x in large])
    out, mask = np.zeros_like(image), np.zeros((h, w))
    for j, i in itertools.product(range(h), range(w)):
        x, y = i + 0.5 - w / 2, j + 0.5 - h / 2
        sx = math.cos(angle) * x - math.sin(angle) * y + w / 2
        sy = math.sin(angle) * x + math.cos(angle) * y + h / 2
        at = [[4 * (sy - 0.5) + 25], [4 * (sx - 0.5) + 25]]
        out[:, j, i] = [ndimage.map_coordinates(channel, at, order=1)[0] for channel in large]
        (row,), (column,) = np.rint(at)
        mask[j, i] = 47 <= row < 4 * h - 1 and 47 <= column < 4 * w - 1
    return out, mask


# ------------------------------------------------------------------------------------------- resampling


def test_whole_pixels():
    x = images(8, 6, n=3)
    moved, mask = shift(x, torch.tensor([[0, 0], [2, -3], [-7, 1]]))
    assert torch.equal(moved[0], x[0]) and mask[0].all() and not moved[2].any() and not mask[2].any()
    assert torch.equal(moved[1, :, :5, 2:], x[1, :, 3:, :4])
    expected = torch.zeros(1, 8, 6, dtype=torch.float64)
    expected[:, :5, 2:] = 1
    assert torch.equal(mask[1], expected) and torch.equal(moved[1] * mask[1], moved[1])


@pytest.mark.parametrize("distance", [(0.0, 0.0), (1.5, -2.25), (-3.9, 0.001), (2.0, -1.0)])
def test_fractions_of_pixels(distance):
    x = images(16, 12, n=1)
    moved, mask = shift_by_fraction(x, torch.tensor([distance], dtype=torch.float64))
    expected, inside = shifted_by_definition(x[0].numpy(), distance)
    assert np.abs(moved[0].numpy() - expected).max() < 1e-12
    assert (mask[0, 0].numpy() == inside).all() and inside.any()


def test_fractions_differ_between_images_of_a_batch():
    x, t = images(16, 16, n=3), torch.tensor([[0.3, 1.2], [-1.7, 0.9], [0.0, 0.5]], dtype=torch.float64)
    moved, mask = shift_by_fraction(x, t)
    for i in range(3):
        alone, alone_mask = shift_by_fraction(x[i : i + 1], t[i : i + 1])
        assert torch.equal(moved[i], alone[0]) and torch.equal(mask[i], alone_mask[0])


@pytest.mark.parametrize("angle", ANGLES)
def test_filter_of_rotations(angle):
    kernel = rotation_filter(torch.tensor(angle, dtype=torch.float64), 1).numpy()
    grid = list(itertools.product(range(-5, 6), repeat=2))
    expected = normalized(filter_by_definition(angle, 1, grid).reshape(11, 11), 1)
    assert np.abs(kernel - expected).max() < 1e-12 and np.allclose(kernel, kernel[::-1, ::-1])


def test_filter_of_enlarged_rotations():
    """At some points of one phase, up to the factor that normalizes it."""
    kernel = rotation_filter(torch.tensor(0.7, dtype=torch.float64), 4).numpy()
    assert kernel.shape == (47, 47)
    sums = np.pad(kernel, (0, 1)).reshape(12, 4, 12, 4).sum((0, 2))
    assert np.allclose(sums, 1 / 16, rtol=1e-12)
    points = [(-11, -7), (-3, 1), (1, 1), (5, -3), (1, 9)]  # multiples of 4 apart
    expected = filter_by_definition(0.7, 4, points)
    found = np.array([kernel[23 + row, 23 + column] for row, column in points])
    assert np.allclose(found / found[2], expected / expected[2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation(angle):
    x = images(20, 24, n=1)
    rotated, mask = rotate(x, torch.tensor([angle], dtype=torch.float64))
    expected, inside = rotated_by_definition(x[0].numpy(), angle)
    assert (mask[0, 0].numpy() == inside).all() and inside.sum() > 30
    assert np.abs((rotated[0].numpy() - expected) * inside).max() < 1e-10


def test_rotation_is_counter_clockwise():
    """A quarter turn moves what is on the right to the top."""
    x = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    x[..., 14:18, 22:26] = 1
    rotated, _ = rotate(x, torch.tensor([math.pi / 2], dtype=torch.float64))
    assert rotated[0, 0, 6:10, 14:18].mean() > 0.8 and rotated[0, 0, 14:18, 22:26].abs().max() < 0.1


def test_band_limit_of_rotated_images():
    x, angles = images(16, 20, n=3), torch.tensor([0.4, -1.1, 2.5], dtype=torch.float64)
    limited, mask = limit_to_rotation(x, angles)
    for image, result, angle in zip(x, limited, angles):
        kernel = rotation_filter(-angle, 1).numpy()
        expected = np.stack([signal.convolve2d(channel, kernel, "same") for channel in image.numpy()])
        assert np.abs(result.numpy() - expected).max() < 1e-12
    assert mask.sum() == 3 * 6 * 10 and mask[:, :, 5:-5, 5:-5].all()


# ------------------------------------------------------------------------- generators of known equivariance


class Waves:
    """A generator whose images are sums of sines that follow the transform of the input, up to errors on purpose."""

    num_ws, noise_layers, device, label_space = 1, (), CPU, LabelSpace(0)

    def __init__(self, size=(32, 32), frequency=4.0, sticks=0.0):
        height, width = size
        self.config = SimpleNamespace(
            height=height, width=width, channels=3, z_dim=8, c_dim=0, takes_transform=True, title="Waves"
        )
        self.frequency, self.sticks = frequency, sticks
        self.sides = torch.tensor([width, height, 1], dtype=torch.float64) / max(size)
        y, x = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / max(size) for n in size)
        ones = torch.ones(size, dtype=torch.float64)
        self.points = torch.stack([x * ones, y[:, None] * ones, ones], 2)  # [H, W, 3]

    def mapping(self, z, c=None, psi=1.0):
        return z[:, None]

    def synthesis(self, ws, noise=(), transform=None):
        still = torch.eye(3, dtype=torch.float64).expand(len(ws), 3, 3)
        matrices = still.clone() if transform is None else transform.double()
        matrices[:, :, 2] *= self.sides  # from widths and heights to the units of the points
        angle = ws[:, 0, :4].double() * 2
        waves = self.frequency * torch.stack([angle.cos(), angle.sin(), ws[:, 0, 4:8].double()], 2)  # [N, 4, 3]
        moved, fixed = (
            (2 * math.pi * torch.einsum("hwk,nik,nfi->nfhw", self.points, m, waves)).sin() for m in (matrices, still)
        )
        image = (1 - self.sticks) * moved + self.sticks * fixed
        return image[:, :3] / 2


def errors(G, motion, count=6, batch=3):
    source = MotionErrors(G, motion, None, CPU, 1)
    return torch.cat([source(index) for index in torch.arange(count).split(batch)])


def decibels(G, motion, **options):
    return peak_signal_to_noise(errors(G, motion, **options)).value


@pytest.mark.parametrize("size", [(32, 32), (24, 32)])
def test_equivariant_generator(size):
    """Whole pixels are exact up to the float32 of the transform; resampling is as good as its filters at a low
    frequency."""
    G = Waves(size, frequency=1.0)
    assert decibels(G, "int") > 120 and decibels(G, "frac") > 45 and decibels(G, "rotate") > 35


def test_generator_that_sticks():
    """The squared error of an image that does not move, against what a plain sum over its pixels gives."""
    G = Waves(frequency=4.0, sticks=1.0)
    amounts = torch.tensor([[3.0, -2.0], [0.0, 4.0]], dtype=torch.float64)
    still = G.synthesis(torch.randn(2, 1, 8))
    found = squared_errors(*compare("int", still, still, amounts))
    plain = [(still[0, :, :30, 3:] - still[0, :, 2:, :29]), (still[1, :, 4:] - still[1, :, :-4])]
    assert torch.allclose(found[:, 0], torch.stack([x.square().sum() for x in plain]))
    assert found[:, 1].tolist() == [x.numel() for x in plain]
    for motion in ("int", "frac", "rotate"):
        some, none = decibels(Waves(frequency=1.0, sticks=0.02), motion), decibels(G, motion)
        assert none < 20 and none + 10 < some < decibels(Waves(frequency=1.0), motion) - 2


def test_transforms_undo_the_motion():
    t = torch.tensor([[4.0, -8.0]], dtype=torch.float64)
    assert torch.equal(input_transform("int", t, (32, 16))[0, :2, 2], torch.tensor([-0.125, 0.5], dtype=torch.float64))
    turned = input_transform("rotate", torch.tensor([0.3], dtype=torch.float64), (32, 16))[0]
    c, s = math.cos(0.3), math.sin(0.3)
    assert torch.allclose(turned, torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64))


def test_motions_are_as_in_the_protocol():
    index, G = torch.arange(4000), Waves((64, 64))
    whole = MotionErrors(G, "int", None, CPU).sample(index)
    assert whole.abs().max() == 8 and torch.equal(whole, whole.round()) and whole.mean(0).abs().max() < 0.3
    any_distance = MotionErrors(G, "frac", None, CPU).sample(index)
    assert 7.9 < any_distance.abs().max() < 8 and torch.equal(any_distance.round(), whole)
    assert float(any_distance.std()) == pytest.approx(16 / math.sqrt(12), rel=0.03)
    angles = MotionErrors(G, "rotate", None, CPU).sample(index)
    assert angles.shape == (4000,) and 3.1 < angles.max() < math.pi and float(angles.std()) == pytest.approx(1.81, 0.03)


def test_errors_do_not_depend_on_the_batch():
    for motion in ("int", "frac", "rotate"):
        assert torch.allclose(errors(Waves(), motion, 5, 5), errors(Waves(), motion, 5, 1), rtol=1e-4, atol=1e-9)


def test_decibels():
    flat = torch.tensor([[0.04, 100.0], [0.12, 300.0], [0.2, 500.0]], dtype=torch.float64)
    value, deviation = peak_signal_to_noise(flat)
    assert value == pytest.approx(40) and deviation == pytest.approx(0, abs=1e-9)
    assert peak_signal_to_noise(flat[:1]) == (pytest.approx(40), None)
    perfect = torch.tensor([[0.0, 10.0]] * 2, dtype=torch.float64)
    assert peak_signal_to_noise(perfect).value == pytest.approx(160, abs=0.1)


def test_standard_error():
    """Equal to the spread of values over repetitions."""
    generator = np.random.default_rng(0)
    runs = [np.stack([generator.exponential(1, 500), generator.integers(50, 150, 500)], 1) for _ in range(300)]
    values, deviations = zip(*(peak_signal_to_noise(torch.tensor(run)) for run in runs))
    assert np.mean(deviations) == pytest.approx(np.std(values), rel=0.15)


# --------------------------------------------------------------------------------------------- in the house


def test_names_units_and_directions():
    names = ["eqt50k_int", "eqt50k_frac", "eqr50k"]
    assert [n for n in METRICS if n.startswith("eq")] == names
    assert [m.name() for m in resolve(["eqt1k_int", "eqr500", "eqt"]).metrics] == ["eqt1k_int", "eqr500", "eqt50k_int"]
    for name, metric in METRICS.items():
        for output in metric.outputs:
            low, high = (1.0, 10.0), (2.0, 20.0)
            best = high if output.higher_is_better else low
            assert best_of(metric.name(output.suffix), [low, high]) == best
        assert unit_of(name) == (" dB" if name in names else "")


def test_measure(fakes):
    results = measure(resolve(["eqt", "eqr"], num=5), Waves(frequency=1.0), None, "cpu")
    assert list(results.values) == ["eqt5_int", "eqr5"] and results.num_images["eqr5"] == (0, 5)
    assert results.values["eqt5_int"] > 120 and all(results.higher_is_better.values())
    assert results.deviations.keys() == results.values.keys() and not fakes.loaded
    assert not any(torch.is_tensor(v) for v in results.values.values())


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_compared_as_they_are(moving_generator, channels):
    G = moving_generator(16, 64, 8, channels=channels)
    assert measure(resolve(["eqt"], num=2), G, None, "cpu").notes == ()


def test_refusals(tiny_generator, rgb_set):
    refusal = "eqt5_int needs a model with an input transform, which this StyleGAN2 model does not have."
    with pytest.raises(SganError, match=refusal):
        measure(resolve(["eqt"], num=5), tiny_generator(), None, "cpu")
    with pytest.raises(SganError, match="eqr5 needs at least 16 pixels per side, not 8x8"):
        measure(resolve(["eqr"], num=5), Waves((8, 8)), None, "cpu")
    from stylegan_cli.data.dataset import open_dataset

    data = open_dataset(rgb_set)
    with pytest.raises(SganError, match="eqr32 measures a model, not images"):
        compare_images(resolve(["eqr"]), data, data)
    metrics = TrainingMetrics(resolve(["eqt5_int"]))
    assert metrics.higher_is_better is None  # that of a flat image is perfect
    ordered = TrainingMetrics(resolve(["eqt5_int", "fid"]))
    assert ordered.higher_is_better is False and ordered.protocol.metrics[0].motion is None
    metrics.check(data, StyleGAN3Config(16, 16))
    with pytest.raises(SganError, match="needs a model with an input transform"):
        metrics.check(data, StyleGAN2Config(16, 16))
