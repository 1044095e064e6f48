"""The Fréchet distance, compared with closed forms and with the definition."""

import numpy as np
import pytest
import torch

from stylegan_cli.metrics.frechet import frechet_distance


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(size, seed=0):
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def by_definition(mean_a, cov_a, mean_b, cov_b):
    """The definition, with tr (C D)^½ from the eigenvalues of the nonsymmetric product."""
    roots = np.sqrt(np.linalg.eigvals((cov_a @ cov_b).numpy()).astype(complex)).real.sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_closed_form_for_commuting_covariances(size):
    """d² = |m - n|² + Σ (√a - √b)², with the eigenvalues a and b."""
    q, m, n = rotation(size), normal(size, seed=1), normal(size, seed=2)
    a, b = normal(size, seed=3).exp(), normal(size, seed=4).exp()
    distance = frechet_distance(m, q * a @ q.T, n, q * b @ q.T)
    assert distance == pytest.approx(float((m - n).square().sum() + (a.sqrt() - b.sqrt()).square().sum()), rel=1e-12)


def test_closed_form_for_other_covariances():
    """For positive definite A, y = A x is the optimal transport: d² = |m - n|² + tr (A - 1) C (A - 1)."""
    size = 40
    q, p = rotation(size, 1), rotation(size, 2)
    cov = q * normal(size, seed=3).exp() @ q.T
    A = p * normal(size, seed=4).exp() @ p.T
    one = torch.eye(size, dtype=torch.float64)
    difference = A - one
    m, n = normal(size, seed=5), normal(size, seed=6)
    expected = float((m - n).square().sum() + (difference @ cov @ difference).trace())
    assert frechet_distance(m, cov, n, A @ cov @ A) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(n, A @ cov @ A, m, cov) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", [(300, 50), (50, 300), (24, 512), (2, 8)])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_distance_to_itself_is_zero(shape, scale):
    x = normal(*shape).exp() * scale
    mean, cov = x.mean(0), x.T.cov()
    assert frechet_distance(mean, cov, mean, cov) == 0


def test_only_rounding_becomes_zero():
    x = normal(300, 50)
    mean, cov = x.mean(0), x.T.cov()
    shift = 1e-5 * cov.trace().sqrt() / 50**0.5  # of every mean: d² is 1e-10 of the trace
    expected = 1e-10 * float(cov.trace())
    assert frechet_distance(mean + shift, cov, mean, cov) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("rows", [(200, 200), (20, 200), (200, 20), (20, 30), (2, 2)])
def test_equals_the_definition_also_for_singular_covariances(rows):
    """For singular matrices, square roots of rounding errors limit the precision to 7 digits."""
    a, b = normal(rows[0], 40), normal(rows[1], 40, seed=1) * 1.5 + 0.2
    moments = a.mean(0), a.T.cov(), b.mean(0), b.T.cov()
    assert frechet_distance(*moments) == pytest.approx(by_definition(*moments), rel=1e-10 if min(rows) > 40 else 1e-5)


def test_zero_covariance():
    """If all images are the same, d² = |m - n|² + tr D."""
    zero, cov = torch.zeros(4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    m = torch.ones(4, dtype=torch.float64)
    assert frechet_distance(m, zero, 0 * m, cov) == pytest.approx(8)
    assert frechet_distance(m, zero, 0 * m, zero) == pytest.approx(4)


def test_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = normal(400, 60).exp(), normal(300, 60, seed=1).exp() * 1.1
    moments = a.mean(0), a.T.cov(), b.mean(0), b.T.cov()
    root = np.trace(linalg.sqrtm((moments[1] @ moments[3]).numpy())).real
    expected = float((moments[0] - moments[2]).square().sum() + moments[1].trace() + moments[3].trace() - 2 * root)
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)
