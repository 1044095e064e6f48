"""Precision, recall, density and coverage, compared with brute force and with known values."""

import numpy as np
import pytest
import torch

from stylegan_cli.metrics.precision_recall import (
    density_coverage,
    neighbor_radii,
    precision_recall,
    squared_distances,
)


def features(n, d=6, seed=0, shift=0.0):
    return torch.from_numpy(np.random.RandomState(seed).randn(n, d) + shift).float()


def distances(x, y):
    return np.linalg.norm(x.double().numpy()[:, None] - y.double().numpy()[None], axis=2)


def radii(x, k):
    return np.sort(distances(x, x), axis=1)[:, k]  # column 0 is the distance to itself


def by_definition(real, fake, k):
    d, real_radii, fake_radii = distances(real, fake), radii(real, k), radii(fake, k)
    inside = d <= real_radii[:, None]
    recall = (d <= fake_radii).any(1).mean()
    return inside.any(0).mean(), recall, inside.sum(0).mean() / k, inside.any(1).mean()


@pytest.mark.parametrize("block", [7, 64, 4096])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_equals_brute_force(block, shift):
    real, fake = features(150), features(120, seed=1, shift=shift)
    precision, recall, *_ = by_definition(real, fake, 3)
    *_, density, coverage = by_definition(real, fake, 5)
    assert precision_recall(real, fake, block=block) == (precision, recall)
    assert density_coverage(real, fake, block=block) == pytest.approx((density, coverage), abs=1e-15)
    assert 0.05 < precision < 1 and 0.05 < coverage < 1


def test_dropped_and_invented_modes():
    """Reals have four distant modes, fakes two of them and another one: precision 2/3, recall 1/2."""
    centers = 100 * torch.eye(6)
    real = torch.cat([features(100, seed=i) + centers[i] for i in range(4)])
    fake = torch.cat([features(300, seed=10 + i) + centers[i] for i in (0, 1, 5)])
    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(2 / 3, abs=0.1) and precision < 2 / 3
    assert recall == pytest.approx(1 / 2, abs=0.05) and recall <= 1 / 2
    density, coverage = density_coverage(real, fake)
    assert coverage == pytest.approx(1 / 2, abs=0.02)
    whole = torch.cat([features(100, seed=20 + i) + centers[i] for i in range(4)])
    assert precision_recall(real, whole) > (precision, recall) and density_coverage(real, whole)[1] > 0.9


def test_set_compared_with_itself():
    x = features(80)
    assert precision_recall(x, x) == (1, 1)
    density, coverage = density_coverage(x, x)
    assert coverage == 1 and density == pytest.approx(1.2)  # k neighbors and the point itself, divided by k


def test_duplicate_images():
    """Their distance is exactly 0, even far from the origin, so a ball of radius 0 contains exactly the duplicates."""
    x = features(6, 300, shift=1000.0).repeat(5, 1)
    assert torch.equal(squared_distances(x, x) == 0, torch.arange(30)[:, None] % 6 == torch.arange(30) % 6)
    assert (neighbor_radii(x, 3) == 0).all()
    near = x[:6] + 0.01
    assert precision_recall(x, x[:6]) == (1, 1)
    assert precision_recall(x, torch.cat([x[:3], near]))[0] == 3 / 9
