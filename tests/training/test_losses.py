"""Losses and penalties against closed forms."""

import math

import pytest
import torch

from stylegan_cli.training.choices import OBJECTIVES
from stylegan_cli.training.losses import LOSSES, classification, discriminator_logistic, drift, generator_logistic
from stylegan_cli.training.regularizers import (
    PathLengthMean,
    gradient_penalty,
    interpolate_images,
    path_lengths,
    wgan_gp,
)


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


def test_losses_of_extreme_logits_have_finite_values_and_gradients():
    extreme = torch.tensor([[-1e4], [1e4]], requires_grad=True)
    loss = generator_logistic(extreme)
    assert loss.flatten().tolist() == [1e4, 0]
    assert torch.autograd.grad(loss.sum(), extreme)[0].flatten().tolist() == [-1, 0]
    assert discriminator_logistic(extreme, extreme.flip(0)).flatten().tolist() == [2e4, 0]


def test_generator_gradient_is_that_of_the_non_saturating_loss(randn):
    fake = randn(5, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(generator_logistic(fake).sum(), fake)
    assert torch.allclose(gradient, fake.sigmoid() - 1)


def log1pexp(x):
    return math.log(1 + math.exp(x))


# Name -> (f, f') of the generator's loss, and of the discriminator's on reals and on fakes.
CLOSED_FORMS = {
    "logistic": (
        (lambda f: log1pexp(-f), lambda f: sigmoid(f) - 1),
        (lambda r: log1pexp(-r), lambda r: sigmoid(r) - 1),
        (log1pexp, sigmoid),
    ),
    "saturating": (
        (lambda f: math.log(1 - sigmoid(f)), lambda f: -sigmoid(f)),
        (lambda r: -math.log(sigmoid(r)), lambda r: sigmoid(r) - 1),
        (lambda f: -math.log(1 - sigmoid(f)), sigmoid),
    ),
    "hinge": (
        (lambda f: -f, lambda f: -1),
        (lambda r: max(0, 1 - r), lambda r: -1 if r < 1 else 0),
        (lambda f: max(0, 1 + f), lambda f: 1 if f > -1 else 0),
    ),
    "lsgan": (
        (lambda f: (f - 1) ** 2 / 2, lambda f: f - 1),
        (lambda r: (r - 1) ** 2 / 2, lambda r: r - 1),
        (lambda f: f**2 / 2, lambda f: f),
    ),
    "wgan": (
        (lambda f: -f, lambda f: -1),
        (lambda r: -r, lambda r: -1),
        (lambda f: f, lambda f: 1),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_and_their_derivatives(randn, name):
    """Compare each with its equation, in float64, on both sides of every kink."""
    if LOSSES[name].paired:
        return check_pairs(randn, LOSSES[name])
    loss, (g, d_real, d_fake) = LOSSES[name], CLOSED_FORMS[name]
    real, fake = (2 * randn(40, 1)).requires_grad_(True), (2 * randn(40, 1)).requires_grad_(True)
    r, f = real.flatten().tolist(), fake.flatten().tolist()
    for values, inputs, expected, slopes in (
        (loss.generator(fake), [fake], map(g[0], f), [map(g[1], f)]),
        (
            loss.discriminator(real, fake),
            [real, fake],
            [d_real[0](a) + d_fake[0](b) for a, b in zip(r, f)],
            [map(d_real[1], r), map(d_fake[1], f)],
        ),
    ):
        assert values.shape == (40, 1)
        assert values.flatten().tolist() == pytest.approx(list(expected), rel=1e-12)
        gradients = torch.autograd.grad(values.sum(), inputs)
        for gradient, slope in zip(gradients, slopes, strict=True):
            assert gradient.flatten().tolist() == pytest.approx(list(slope), rel=1e-12)


def check_pairs(randn, loss):
    """Both losses are functions of the difference within each pair."""
    real, fake = (2 * randn(40, 1)).requires_grad_(True), (2 * randn(40, 1)).requires_grad_(True)
    for values, wrong, right in (
        (loss.generator(fake, real), real, fake),
        (loss.discriminator(real, fake), fake, real),
    ):
        margins = (wrong - right).flatten().tolist()
        assert values.shape == (40, 1)
        assert values.flatten().tolist() == pytest.approx([log1pexp(m) for m in margins], rel=1e-12)
        found = torch.autograd.grad(values.sum(), [wrong, right])
        for gradient, sign in zip(found, (1, -1), strict=True):
            assert gradient.flatten().tolist() == pytest.approx([sign * sigmoid(m) for m in margins], rel=1e-12)


def test_names_of_objectives_match_the_losses():
    """choices.py has the names without importing PyTorch."""
    assert list(OBJECTIVES) == list(LOSSES) == [*CLOSED_FORMS, "relativistic"]


@pytest.mark.parametrize("name", LOSSES)
def test_the_boundary_is_where_the_discriminator_is_undecided(name):
    """The output for images that are real as often as generated, where both gradients cancel."""
    boundary = LOSSES[name].boundary
    if boundary is None:  # they cancel everywhere
        return
    x = torch.tensor([[boundary]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(LOSSES[name].discriminator(x, x), x)
    assert gradient.item() == 0


def test_drift():
    assert drift(torch.tensor([[-3.0], [2.0]])).tolist() == [[9], [4]]


def test_classification(randn):
    """-log softmax, and its derivative softmax - c."""
    classes, c = randn(4, 3).requires_grad_(True), torch.eye(3).double()[[0, 2, 1, 1]]
    loss = classification(classes, c)
    p = classes.exp() / classes.exp().sum(1, keepdim=True)
    assert loss.shape == (4,) and torch.allclose(loss, -p[c == 1].log())
    (gradient,) = torch.autograd.grad(loss.sum(), classes)
    assert torch.allclose(gradient, p - c)


# ----------------------------------------------------------------------------- gradient penalties of D


def test_r1_of_a_linear_discriminator(randn):
    x, a = randn(4, 3, 5, 6).requires_grad_(True), randn(3, 5, 6)
    penalty = gradient_penalty((x * a).sum([1, 2, 3])[:, None] + 7, x)
    assert penalty.shape == (4,)
    assert torch.allclose(penalty, a.square().sum().expand(4))


def test_r1_of_a_quadratic_discriminator_and_its_gradient(randn):
    x, q = randn(4, 2, 3, 3).requires_grad_(True), randn(18, 18).requires_grad_(True)
    flat = x.flatten(1)
    penalty = gradient_penalty(((flat @ q) * flat).sum(1, keepdim=True), x)
    symmetric = (q + q.t()).detach()
    assert torch.allclose(penalty, (flat.detach() @ symmetric).square().sum(1))
    (gradient,) = torch.autograd.grad(penalty.sum(), q)  # d/dq sum |(q + q^T) x|^2 = 2 (g x^T + x g^T)
    v = flat.detach()
    g = v @ symmetric
    expected = 2 * (g.t() @ v + v.t() @ g)
    assert torch.allclose(gradient, expected)


def test_wgan_gp_of_a_linear_discriminator(randn):
    """(|a| - 1)^2 everywhere, with the derivative 2 (|a| - 1) a / |a|."""
    x, a = randn(4, 3, 5, 6).requires_grad_(True), randn(3, 5, 6).requires_grad_(True)
    penalty = wgan_gp((x * a).sum([1, 2, 3])[:, None] + 7, x)
    norm = a.detach().norm()
    assert penalty.shape == (4,) and torch.allclose(penalty, (norm - 1).square().expand(4))
    (gradient,) = torch.autograd.grad(penalty.sum(), a)
    assert torch.allclose(gradient, 4 * 2 * (norm - 1) * a.detach() / norm)


def test_wgan_gp_of_a_flat_discriminator():
    """Where the gradient is 0, the penalty is 1 and its derivative 0, not nan."""
    x, a = torch.zeros(2, 1, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, requires_grad=True)
    penalty = wgan_gp((x * a).sum([1, 2, 3])[:, None], x)
    assert penalty.tolist() == [1, 1]
    assert torch.autograd.grad(penalty.sum(), a)[0].abs().max() == 0


@pytest.mark.parametrize("penalty", [gradient_penalty, wgan_gp])
def test_derivatives_of_penalties(randn, penalty):
    """Finite differences for a nonlinear D, with respect to its weights and the images."""
    x, q, a = randn(2, 1, 2, 2).requires_grad_(True), randn(4, 3).requires_grad_(True), randn(3).requires_grad_(True)

    def function(x, q, a):
        return penalty(((x.flatten(1) @ q).tanh() @ a)[:, None], x)

    assert torch.autograd.gradcheck(function, (x, q, a))


def test_interpolate_images(randn):
    real, fake = randn(3, 2, 4, 4), randn(3, 2, 4, 4)
    mixed = interpolate_images(real, fake, torch.tensor([1.0, 0.0, 0.25]).double())
    assert torch.equal(mixed[0], real[0]) and torch.equal(mixed[1], fake[1])
    assert torch.allclose(mixed[2], 0.25 * real[2] + 0.75 * fake[2])


# --------------------------------------------------------------------------------------- path length


def linear_generator(ws, a):  # [N, K, D], [K, D, C, H, W] -> [N, C, H, W]
    return torch.einsum("nkd,kdchw->nchw", ws, a)


def test_path_lengths_of_a_linear_generator(randn):
    ws, a, y = randn(3, 4, 5).requires_grad_(True), randn(4, 5, 2, 6, 8), randn(3, 2, 6, 8)
    lengths = path_lengths(linear_generator(ws, a), ws, y)
    pulled = torch.einsum("nchw,kdchw->nkd", y, a) / math.sqrt(6 * 8)
    assert lengths.shape == (3,)
    assert torch.allclose(lengths, pulled.square().sum(2).mean(1).sqrt())


def test_path_lengths_can_be_minimized(randn):
    ws, a, y = randn(3, 4, 5).requires_grad_(True), randn(4, 5, 1, 4, 4).requires_grad_(True), randn(3, 1, 4, 4)
    lengths = path_lengths(linear_generator(ws, a), ws, y)
    (gradient,) = torch.autograd.grad(lengths.square().sum(), a)
    pulled = torch.einsum("nchw,kdchw->nkd", y, a.detach()) / 4
    assert torch.allclose(gradient, 2 / 4 * torch.einsum("nkd,nchw->kdchw", pulled, y) / 4)


def test_expected_path_length_is_independent_of_size(randn):
    """A generator that scales every pixel by a has length a sqrt(pixels) / sqrt(H W), whatever the size."""
    for size in (8, 32):
        ws = randn(1, 1, size * size).requires_grad_(True)
        images = 3 * ws.reshape(1, 1, size, size)
        lengths = path_lengths(images, ws, randn(1, 1, size, size))
        assert lengths.item() == pytest.approx(3, rel=0.2)


def test_running_mean_of_path_lengths(randn):
    mean = PathLengthMean(0.25, dtype=torch.float64)
    lengths = randn(6).abs()
    mean.move(lengths.sum(), 6)
    assert mean.mean.item() == pytest.approx(0.25 * lengths.mean().item())
    assert torch.allclose(mean.penalty(lengths), (lengths - 0.25 * lengths.mean()).square())
    mean.move(torch.tensor(4.0, dtype=torch.float64), 2)
    assert mean.mean.item() == pytest.approx(0.75 * 0.25 * lengths.mean().item() + 0.25 * 2)
    other = PathLengthMean(0.25, dtype=torch.float64)
    other.load_state_dict(mean.state_dict())
    assert other.mean == mean.mean


def test_the_running_mean_has_no_gradient(randn):
    mean, lengths = PathLengthMean(0.5, dtype=torch.float64), randn(4).requires_grad_(True)
    mean.move(lengths.sum(), 4)
    assert not mean.mean.requires_grad


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_the_penalty_is_against_the_moved_mean_and_its_gradient_goes_through_it(randn, parts):
    """StyleGAN2's definition, by autograd: mean <- lerp(mean, lengths.mean(), decay), sum (lengths - mean)^2."""
    before, lengths = torch.tensor(1.5).double(), randn(6).abs().requires_grad_(True)
    moved = torch.lerp(before, lengths.mean(), 0.3)
    expected = (lengths - moved).square()
    (gradient,) = torch.autograd.grad(expected.sum(), lengths)
    mean = PathLengthMean(0.3, dtype=torch.float64)
    mean.load_state_dict({"mean": before})
    mean.move(lengths.sum(), 6)
    penalties = [mean.penalty(part) for part in lengths.chunk(parts)]
    for penalty in penalties:
        penalty.sum().backward()
    assert torch.allclose(torch.cat(penalties), expected, rtol=1e-14)
    assert torch.allclose(lengths.grad, gradient, rtol=1e-13)
    assert not torch.allclose(gradient, 2 * (lengths - moved), rtol=1e-3)
