"""Losses and penalties against closed forms."""

import math

import pytest
import torch

from stylegan_cli.training.losses import discriminator_logistic, generator_logistic
from stylegan_cli.training.regularizers import PathLengthMean, path_lengths, r1_penalty


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_generator_loss(randn):
    fake = randn(6, 1)
    loss = generator_logistic(fake)
    assert loss.shape == (6, 1)
    assert loss.flatten().tolist() == pytest.approx([-math.log(sigmoid(v)) for v in fake.flatten().tolist()])
    assert generator_logistic(torch.zeros(1, 1)).item() == pytest.approx(math.log(2))


def test_discriminator_loss(randn):
    real, fake = randn(6, 1), randn(6, 1)
    loss = discriminator_logistic(real, fake)
    expected = [
        -math.log(sigmoid(r)) - math.log(1 - sigmoid(f))
        for r, f in zip(real.flatten().tolist(), fake.flatten().tolist())
    ]
    assert loss.shape == (6, 1) and loss.flatten().tolist() == pytest.approx(expected)


def test_losses_of_extreme_logits_are_finite_and_keep_their_gradient():
    extreme = torch.tensor([[-1e4], [1e4]], requires_grad=True)
    loss = generator_logistic(extreme)
    assert loss.flatten().tolist() == [1e4, 0]
    assert torch.autograd.grad(loss.sum(), extreme)[0].flatten().tolist() == [-1, 0]
    assert discriminator_logistic(extreme, extreme.flip(0)).flatten().tolist() == [2e4, 0]


def test_generator_gradient_is_that_of_the_non_saturating_loss(randn):
    fake = randn(5, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(generator_logistic(fake).sum(), fake)
    assert torch.allclose(gradient, fake.sigmoid() - 1)


# ------------------------------------------------------------------------------------------------ R1


def test_r1_of_a_linear_discriminator(randn):
    x, a = randn(4, 3, 5, 6).requires_grad_(True), randn(3, 5, 6)
    penalty = r1_penalty((x * a).sum([1, 2, 3])[:, None] + 7, x)
    assert penalty.shape == (4,)
    assert torch.allclose(penalty, a.square().sum().expand(4))


def test_r1_of_a_quadratic_discriminator_and_its_gradient(randn):
    x, q = randn(4, 2, 3, 3).requires_grad_(True), randn(18, 18).requires_grad_(True)
    flat = x.flatten(1)
    penalty = r1_penalty(((flat @ q) * flat).sum(1, keepdim=True), x)
    symmetric = (q + q.t()).detach()
    assert torch.allclose(penalty, (flat.detach() @ symmetric).square().sum(1))
    (gradient,) = torch.autograd.grad(penalty.sum(), q)  # d/dq sum |(q + q^T) x|^2 = 2 (g x^T + x g^T)
    v = flat.detach()
    g = v @ symmetric
    expected = 2 * (g.t() @ v + v.t() @ g)
    assert torch.allclose(gradient, expected)


# --------------------------------------------------------------------------------------- path length


def linear_generator(ws, a):  # [N, K, D], [K, D, C, H, W] -> [N, C, H, W]
    return torch.einsum("nkd,kdchw->nchw", ws, a)


def test_path_lengths_of_a_linear_generator(randn):
    ws, a, y = randn(3, 4, 5).requires_grad_(True), randn(4, 5, 2, 6, 8), randn(3, 2, 6, 8)
    lengths = path_lengths(linear_generator(ws, a), ws, y)
    pulled = torch.einsum("nchw,kdchw->nkd", y, a) / math.sqrt(6 * 8)
    assert lengths.shape == (3,)
    assert torch.allclose(lengths, pulled.square().sum(2).mean(1).sqrt())


def test_path_lengths_can_be_minimised(randn):
    ws, a, y = randn(3, 4, 5).requires_grad_(True), randn(4, 5, 1, 4, 4).requires_grad_(True), randn(3, 1, 4, 4)
    lengths = path_lengths(linear_generator(ws, a), ws, y)
    (gradient,) = torch.autograd.grad(lengths.square().sum(), a)
    pulled = torch.einsum("nchw,kdchw->nkd", y, a.detach()) / 4
    assert torch.allclose(gradient, 2 / 4 * torch.einsum("nkd,nchw->kdchw", pulled, y) / 4)


def test_expected_path_length_does_not_depend_on_the_size(randn):
    """A generator that scales every pixel by a has length a sqrt(pixels) / sqrt(H W), whatever the size."""
    for size in (8, 32):
        ws = randn(1, 1, size * size).requires_grad_(True)
        images = 3 * ws.reshape(1, 1, size, size)
        lengths = path_lengths(images, ws, randn(1, 1, size, size))
        assert lengths.item() == pytest.approx(3, rel=0.2)


def test_running_mean_of_path_lengths(randn):
    mean = PathLengthMean(0.25, dtype=torch.float64)
    lengths = randn(6).abs()
    assert torch.allclose(mean.penalty(lengths), lengths.square())
    mean.update(lengths.sum(), 6)
    assert mean.mean.item() == pytest.approx(0.25 * lengths.mean().item())
    assert torch.allclose(mean.penalty(lengths), (lengths - mean.mean).square())
    mean.update(torch.tensor(4.0, dtype=torch.float64), 2)
    assert mean.mean.item() == pytest.approx(0.75 * 0.25 * lengths.mean().item() + 0.25 * 2)
    other = PathLengthMean(0.25, dtype=torch.float64)
    other.load_state_dict(mean.state_dict())
    assert other.mean == mean.mean


def test_the_running_mean_is_no_part_of_the_graph(randn):
    mean, lengths = PathLengthMean(0.5, dtype=torch.float64), randn(4).requires_grad_(True)
    mean.update(lengths.sum(), 4)
    assert not mean.mean.requires_grad
