"""The kernel distance, compared with a direct implementation of its equation, and its statistical properties."""

import numpy as np
import pytest
import torch

from stylegan_cli.metrics.kernel import kernel_distance


def features(n, d=16, seed=0, shift=0.0):
    return torch.from_numpy(np.random.RandomState(seed).randn(n, d) + shift).float()


def k(x, y):
    return (float(x @ y) / len(x) + 1) ** 3


def by_definition(x, y):
    """The equation, sum by sum."""
    x, y, m = x.double().numpy(), y.double().numpy(), len(x)
    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j)
    between = sum(k(x[i], y[j]) for i in range(m) for j in range(m))
    return within / (m * (m - 1)) - 2 * between / m**2


def test_equals_the_definition_if_a_subset_has_all_images():
    x, y = features(30), features(30, seed=1, shift=0.3)
    assert kernel_distance(x, y, subsets=3)[0] == pytest.approx(by_definition(x, y), rel=1e-10)


def test_equals_the_definition_over_subsets():
    x, y = features(40), features(25, seed=1, shift=0.3)
    rng = np.random.RandomState(4)
    values = [
        by_definition(x[rng.choice(40, 10, replace=False)], y[rng.choice(25, 10, replace=False)]) for _ in range(5)
    ]
    assert kernel_distance(x, y, seed=4, subsets=5, size=10)[0] == pytest.approx(np.mean(values), rel=1e-10)


def test_jackknife_leaves_out_one_pair_at_a_time():
    x, y = features(12), features(12, seed=1, shift=0.3)
    rng, variances = np.random.RandomState(0), []
    for _ in range(2):  # each subset forms other pairs
        a, b = x[rng.permutation(12)], y[rng.permutation(12)]
        keep = [[j for j in range(12) if j != i] for i in range(12)]
        left = np.array([by_definition(a[rows], b[rows]) for rows in keep])
        variances.append(11 / 12 * np.square(left - left.mean()).sum())
    assert kernel_distance(x, y, subsets=2)[1] == pytest.approx(np.mean(variances) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("size", [20, 100])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_standard_error_matches_the_deviation_between_samples(size, shift):
    """For equal distributions it may be too large by a factor of about two, because the variance then decreases faster
    with the number of images than assumed."""
    results = [
        kernel_distance(features(100, 4, 2 * i), features(100, 4, 2 * i + 1, shift), subsets=20, size=size)
        for i in range(60)
    ]
    values, errors = np.array(results).T
    assert 0.7 * values.std() < errors.mean() < (1.5 if shift else 2.5 * (100 / size) ** 0.5) * values.std()


def test_distance_between_two_halves_is_within_its_error():
    x = features(1200, 32).exp()
    values = [kernel_distance(x[order[:600]], x[order[600:]], subsets=20) for order in orders(1200, 4)]
    assert all(abs(value) < 3 * error for value, error in values)
    assert np.mean([abs(value) < error for value, error in values]) >= 0.5
    value, error = kernel_distance(x[:600], x[600:] * 1.2, subsets=20)
    assert value > 3 * error


def orders(n, count):
    return [torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_random_state_does_not_change():
    np.random.seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    kernel_distance(features(20), features(20, seed=1), subsets=2)
    np.random.seed(1)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
