"""Directions without labels, compared with NumPy."""

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.directions import sample_w
from stylegan_cli.inversion.factorize import find_unlabeled, pca, sefa
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, c_dim=2, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    return build_generator(config).eval().requires_grad_(False)


def same_up_to_sign(a, b):
    """Return whether the rows are the same up to their signs."""
    return np.allclose(np.abs((a * b).sum(1)), 1, atol=1e-5)


def is_normalized(vectors):
    """Return whether vectors are orthonormal, with a positive largest component."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return torch.allclose(vectors @ vectors.T, torch.eye(len(vectors)), atol=1e-5) and (largest > 0).all()


def test_sefa_is_a_singular_value_decomposition():
    torch.manual_seed(0)
    weights = [torch.randn(5, 8), torch.randn(12, 8) * 3]
    vectors, values = sefa(weights, 6)
    _, s, vh = np.linalg.svd(torch.cat(weights).double().numpy())
    assert same_up_to_sign(vectors.numpy(), vh[:6]) and np.allclose(values, s[:6] ** 2)
    assert is_normalized(vectors) and vectors.dtype == torch.float32


def test_no_direction_changes_styles_more_than_the_first():
    torch.manual_seed(1)
    A = torch.randn(20, 8)
    (first, *_), _ = sefa([A], 8)
    others = torch.nn.functional.normalize(torch.randn(1000, 8), dim=1)
    assert (A @ first).norm() >= (others @ A.T).norm(dim=1).max()


def test_sefa_uses_the_chosen_layers(G):
    weights = [G.style_weight(row) for row in G.layers if row.w_index in (1, 2)]
    assert len(weights) == 3, "the image layer shares its w with the first layer of the next level"
    directions = find_unlabeled(G, "sefa", 4, [1, 2], 50)
    assert torch.equal(directions.vectors, sefa(weights, 4)[0]) and directions.layers == [1, 2]
    assert not torch.equal(directions.vectors, find_unlabeled(G, "sefa", 4, [0], 50).vectors)
    assert directions.names == ["sefa0", "sefa1", "sefa2", "sefa3"]
    assert directions.figures["eigenvalue"] == sorted(directions.figures["eigenvalue"], reverse=True)


def test_sefa_leaves_out_what_moves_the_image(moving_generator):
    """Also if a span of layers contains it, but not if it is the only one."""
    G = moving_generator(16, 64, 8)
    found = [find_unlabeled(G, "sefa", 4, layers, 50).vectors for layers in ([0, 1], [1], [0])]
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], sefa([G.style_weight(G.layers[0])], 4)[0])


def test_pca_is_that_of_numpy():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 8)) + 5
    vectors, variance = pca(torch.from_numpy(w), 8)
    _, s, vh = np.linalg.svd(w - w.mean(0))
    assert same_up_to_sign(vectors.numpy(), vh) and np.allclose(variance, s**2 / (s**2).sum())
    assert is_normalized(vectors)


def test_pca_of_a_model(G):
    directions = find_unlabeled(G, "pca", 8, range(6), 300)
    w = sample_w(G, range(300))
    assert torch.allclose(directions.scales.double(), (w @ directions.vectors.double().T).std(0))
    assert directions.scales.tolist() == sorted(directions.scales.tolist(), reverse=True)
    assert sum(directions.figures["variance"]) == pytest.approx(1)
    assert directions.settings["num"] == 300 and directions.layers == [0, 1, 2, 3, 4, 5]


def test_directions_depend_on_the_class(G):
    one, other, any_class = (find_unlabeled(G, "pca", 3, [0], 100, c) for c in (0, 1, None))
    assert not torch.equal(one.vectors, other.vectors) and not torch.equal(one.vectors, any_class.vectors)


@pytest.mark.parametrize("method", ["pca", "sefa"])
def test_results_are_deterministic(G, method):
    a, b = (find_unlabeled(G, method, 5, range(6), 200) for _ in range(2))
    assert torch.equal(a.vectors, b.vectors) and torch.equal(a.scales, b.scales) and a.figures == b.figures


@pytest.mark.parametrize(("method", "num", "limit"), [("pca", 300, 8), ("pca", 4, 3), ("sefa", 4, 8)])
def test_too_many_directions(G, method, num, limit):
    find_unlabeled(G, method, limit, [0], num)
    with pytest.raises(SganError, match=f"there are {limit} directions") as e:
        find_unlabeled(G, method, limit + 1, [0], num)
    assert f"1 to {limit}" in e.value.hint
