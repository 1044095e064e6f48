"""Linear classifiers in W: the optimum, and what is put aside."""

import pytest
import torch
from torch.nn.functional import normalize

from stylegan_cli.inversion.linear import auc, held_out, logistic, orthogonalize, whiten


@pytest.fixture(scope="module")
def w():
    """[4000, 8], varying much more along some directions than along others."""
    torch.manual_seed(0)
    mixing = torch.randn(8, 8, dtype=torch.float64) * torch.logspace(-0.5, 0.5, 8, dtype=torch.float64)
    return torch.randn(4000, 8, dtype=torch.float64) @ mixing + 3


def test_white_coordinates(w):
    white = whiten(w)
    z = white.of(w)
    assert torch.allclose(torch.cov(z.T), torch.eye(8, dtype=torch.float64), atol=1e-2)
    assert torch.allclose(z.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(white.back(z) + white.mean, w, atol=1e-6)


def test_directions_that_do_not_vary_are_not_blown_up():
    w = torch.randn(100, 4, dtype=torch.float64) * torch.tensor([1.0, 1, 1, 0])
    z = whiten(w).of(w)
    assert torch.isfinite(z).all() and z[:, 3].abs().max() < 1e-6


def test_logistic_is_at_its_optimum(w):
    z = whiten(w).of(w)
    targets = torch.rand(4000, 3, dtype=torch.float64)
    targets[:, 0] = (z[:, 0] + torch.randn(4000) > 1).double()
    normals = logistic(z, targets, decay=0.01)
    for k in range(3):  # the derivative by each normal, at the best bias for it
        bias = torch.zeros((), dtype=torch.float64)
        for _ in range(100):
            p = torch.sigmoid(z @ normals[k] + bias)
            bias -= (p - targets[:, k]).mean() / (p * (1 - p)).mean()
        slope = ((p - targets[:, k])[:, None] * z).mean(0) + 0.01 * normals[k]
        assert slope.abs().max() < 1e-7


def test_a_known_direction_is_recovered_and_its_confound_put_aside(w):
    """Two attributes that go together: the labels of one are half the other's."""
    white = whiten(w)
    z = white.of(w)
    a, b = normalize(torch.randn(2, 8, dtype=torch.float64), dim=1)
    a = normalize(a + b, dim=0)  # not orthogonal
    targets = torch.stack([z @ a > 0.5, z @ b > 0], 1).double()
    normals = logistic(z, targets)
    assert torch.cosine_similarity(normals, torch.stack([a, b])).min() > 0.99
    plain, aside = orthogonalize(normals[0], normals[1:], 0), orthogonalize(normals[0], normals[1:], 1e6)
    assert torch.equal(plain, normals[0]) and (plain @ b).abs() > 0.5 * plain.norm()
    assert (aside @ normals[1]).abs() < 1e-3 * aside.norm() * normals[1].norm()
    assert (aside @ normals[0]) > 0
    step = white.back(aside[None])  # the same in W: a's score rises, b's does not
    before, after = white.of(w), white.of(w + 2 * step)
    assert ((after - before) @ a > 0).all() and ((after - before) @ normals[1]).abs().max() < 1e-2


def test_a_large_weight_is_the_papers_projection():
    torch.manual_seed(2)
    n, others = torch.randn(8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    basis = torch.linalg.qr(others.T).Q
    assert torch.allclose(orthogonalize(n, others, 1e9), n - basis @ (basis.T @ n), atol=1e-6)


def test_more_weight_leaves_less_of_the_others():
    torch.manual_seed(3)
    n, others = torch.randn(8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    moved = [(others @ normalize(orthogonalize(n, others, weight), dim=0)).norm() for weight in (0, 0.1, 1, 10, 100)]
    assert moved == sorted(moved, reverse=True)
    assert torch.equal(orthogonalize(n, others[:0], 10), n)


def test_logistic_is_the_same_to_the_bit(w):
    z = whiten(w).of(w)
    targets = (z[:, :3] > 0.5).double()
    assert torch.equal(logistic(z, targets), logistic(z, targets))


def test_auc_counts_pairs():
    torch.manual_seed(4)
    scores, positive = torch.randint(0, 10, (60,)).double(), torch.rand(60) < 0.3
    pairs = scores[positive][:, None] - scores[~positive]
    assert auc(scores, positive) == pytest.approx(((pairs > 0).double() + (pairs == 0) / 2).mean().item())
    assert auc(scores, torch.zeros(60, dtype=torch.bool)) == 0.5


def test_every_tenth_is_held_out():
    assert held_out(30).nonzero().flatten().tolist() == [9, 19, 29]
