"""Linear classifiers in W: their optimum, and preserved labels."""

import pytest
import torch
from torch.nn.functional import normalize

from stylegan_cli.inversion.linear import auc, fit_logistic, fit_whitening, holdout_mask, orthogonalize


@pytest.fixture(scope="module")
def w():
    """[4000, 8], with much more variance along some directions than along others."""
    torch.manual_seed(0)
    mixing = torch.randn(8, 8, dtype=torch.float64) * torch.logspace(-0.5, 0.5, 8, dtype=torch.float64)
    return torch.randn(4000, 8, dtype=torch.float64) @ mixing + 3


def test_whitening(w):
    whitening = fit_whitening(w)
    z = whitening.to_white(w)
    assert torch.allclose(torch.cov(z.T), torch.eye(8, dtype=torch.float64), atol=1e-2)
    assert torch.allclose(z.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(whitening.directions_to_w(z) + whitening.mean, w, atol=1e-6)


def test_directions_without_variance_are_not_amplified():
    w = torch.randn(100, 4, dtype=torch.float64) * torch.tensor([1.0, 1, 1, 0])
    z = fit_whitening(w).to_white(w)
    assert torch.isfinite(z).all() and z[:, 3].abs().max() < 1e-6


def test_logistic_regression_converges(w):
    z = fit_whitening(w).to_white(w)
    targets = torch.rand(4000, 3, dtype=torch.float64)
    targets[:, 0] = (z[:, 0] + torch.randn(4000) > 1).double()
    normals = fit_logistic(z, targets, decay=0.01)
    for k in range(3):  # the gradient with respect to the normal, at its optimal bias
        bias = torch.zeros((), dtype=torch.float64)
        for _ in range(100):
            p = torch.sigmoid(z @ normals[k] + bias)
            bias -= (p - targets[:, k]).mean() / (p * (1 - p)).mean()
        gradient = ((p - targets[:, k])[:, None] * z).mean(0) + 0.01 * normals[k]
        assert gradient.abs().max() < 1e-7


def test_a_known_direction_is_recovered_and_a_correlated_one_preserved(w):
    """Two attributes whose directions are correlated."""
    whitening = fit_whitening(w)
    z = whitening.to_white(w)
    a, b = normalize(torch.randn(2, 8, dtype=torch.float64), dim=1)
    a = normalize(a + b, dim=0)  # not orthogonal
    targets = torch.stack([z @ a > 0.5, z @ b > 0], 1).double()
    normals = fit_logistic(z, targets)
    assert torch.cosine_similarity(normals, torch.stack([a, b])).min() > 0.99
    plain, orthogonal = orthogonalize(normals[0], normals[1:], 0), orthogonalize(normals[0], normals[1:], 1e6)
    assert torch.equal(plain, normals[0]) and (plain @ b).abs() > 0.5 * plain.norm()
    assert (orthogonal @ normals[1]).abs() < 1e-3 * orthogonal.norm() * normals[1].norm()
    assert (orthogonal @ normals[0]) > 0
    step = whitening.directions_to_w(orthogonal[None])
    # the same in W: the score of a increases, that of b does not change
    before, after = whitening.to_white(w), whitening.to_white(w + 2 * step)
    assert ((after - before) @ a > 0).all() and ((after - before) @ normals[1]).abs().max() < 1e-2


def test_a_large_weight_projects_onto_the_orthogonal_complement():
    torch.manual_seed(2)
    n, others = torch.randn(8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    basis = torch.linalg.qr(others.T).Q
    assert torch.allclose(orthogonalize(n, others, 1e9), n - basis @ (basis.T @ n), atol=1e-6)


def test_more_weight_preserves_the_others_better():
    torch.manual_seed(3)
    n, others = torch.randn(8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    changes = [(others @ normalize(orthogonalize(n, others, weight), dim=0)).norm() for weight in (0, 0.1, 1, 10, 100)]
    assert changes == sorted(changes, reverse=True)
    assert torch.equal(orthogonalize(n, others[:0], 10), n)


def test_logistic_regression_is_deterministic(w):
    z = fit_whitening(w).to_white(w)
    targets = (z[:, :3] > 0.5).double()
    assert torch.equal(fit_logistic(z, targets), fit_logistic(z, targets))


def test_auc_is_the_fraction_of_ordered_pairs():
    torch.manual_seed(4)
    scores, is_positive = torch.randint(0, 10, (60,)).double(), torch.rand(60) < 0.3
    pairs = scores[is_positive][:, None] - scores[~is_positive]
    assert auc(scores, is_positive) == pytest.approx(((pairs > 0).double() + (pairs == 0) / 2).mean().item())
    assert auc(scores, torch.zeros(60, dtype=torch.bool)) == 0.5


def test_every_tenth_seed_is_held_out():
    assert holdout_mask(30).nonzero().flatten().tolist() == [9, 19, 29]
