"""Spectral normalization, batch normalization and self-attention against plain definitions, with their derivatives."""

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from stylegan_cli.layers import (
    BatchNorm,
    ConditionalBatchNorm,
    SelfAttention,
    SpectralConv2d,
    SpectralLinear,
    iterate_power,
    measure_standing_statistics,
)
from stylegan_cli.layers.initial import orthogonal
from stylegan_cli.layers.statistics import collect_statistics, commit_statistics


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# -------------------------------------------------------------------------------- spectral normalization


@pytest.mark.parametrize("layer", [SpectralLinear(6, 9), SpectralConv2d(3, 5, 3)], ids=["linear", "conv"])
def test_the_largest_singular_value_is_one(layer):
    layer = copy.deepcopy(layer).double()
    layer.weight.data = randn(*layer.weight.shape)
    layer.iterate(500)
    weight, _ = layer.effective(torch.float64)
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, rel=1e-9)
    assert float(layer.weight_gain) == pytest.approx(1 / torch.linalg.svdvals(layer.weight.flatten(1))[0].item())


def test_the_gradient_is_that_of_the_quotient():
    """dL/dW = (g - (g : W / sigma) u v^T) / sigma for constant u and v (Miyato et al. 2018, equation 12)."""
    layer = SpectralLinear(4, 5, bias=False).double()
    layer.weight.data = randn(5, 4)
    layer.iterate(300)
    x, g = randn(7, 4), randn(7, 5)
    (found,) = torch.autograd.grad((layer(x) * g).sum(), layer.weight)
    u, s, vh = torch.linalg.svd(layer.weight.detach())
    outer, normalized = torch.outer(u[:, 0], vh[0]), layer.weight.detach() / s[0]
    plain = g.T @ x
    torch.testing.assert_close(found, (plain - (plain * normalized).sum() * outer) / s[0], rtol=1e-6, atol=1e-8)


def test_first_and_second_derivatives_of_spectral_layers():
    layer = SpectralConv2d(2, 3, 3).double()

    def f(x, w, b):
        return torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))

    inputs = [t.requires_grad_(True) for t in (randn(2, 2, 4, 3), randn(3, 2, 3, 3), randn(3))]
    # v depends on the weight only where no gradient is taken: at the end of the power iteration they agree.
    layer.weight.data = inputs[1].detach().clone()
    layer.iterate(500)
    assert gradcheck(lambda x, b: f(x, inputs[1], b), (inputs[0], inputs[2]))
    assert gradgradcheck(lambda x, b: f(x, inputs[1], b), (inputs[0], inputs[2]))
    exact = (inputs[1] / torch.linalg.svdvals(inputs[1].flatten(1))[0],)
    loss = (f(*inputs).pow(3)).sum()
    plain = (F.conv2d(inputs[0], exact[0], inputs[2], padding=1).pow(3)).sum()
    for a, b in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_the_iteration_moves_once_per_call_and_never_in_a_pass():
    layer = SpectralLinear(40, 30)
    layer.weight.data.normal_()
    before = layer.u.clone()
    layer(torch.randn(3, 40))
    assert torch.equal(layer.u, before)
    iterate_power(torch.nn.Sequential(layer))
    v = F.normalize(before @ layer.weight, dim=0)
    torch.testing.assert_close(layer.u, F.normalize(layer.weight.detach() @ v, dim=0))
    assert "u" in layer.state_dict() and SpectralLinear(4, 3, spectral=False).state_dict().keys() == {"weight", "bias"}


def test_orthogonal_weights():
    w = orthogonal(6, 2, 3, 3).flatten(1)
    torch.testing.assert_close(w @ w.T, torch.eye(6), atol=1e-5, rtol=0)
    with torch.device("meta"):
        assert orthogonal(3, 4).is_meta


# ----------------------------------------------------------------------------------- batch normalization


def test_batch_norm_against_pytorch():
    norm, plain = BatchNorm(3).double(), torch.nn.BatchNorm2d(3).double()
    norm.gain.data, norm.bias.data = randn(3), randn(3)
    plain.weight.data, plain.bias.data = 1 + norm.gain.data, norm.bias.data.clone()
    for _ in range(3):
        x = 3 * randn(4, 3, 5, 2) + 1
        with collect_statistics(norm):
            y = norm(x)
        torch.testing.assert_close(y, plain(x))
        commit_statistics(norm, 4, lambda total: total)
    torch.testing.assert_close(norm.mean, plain.running_mean)
    unbiased = 40 / 39  # PyTorch's running variance is of a sample; the first value 1 is of neither
    torch.testing.assert_close((norm.variance - 0.9**3) * unbiased, plain.running_var - 0.9**3)
    norm.eval(), plain.eval()
    plain.running_var.copy_(norm.variance)
    torch.testing.assert_close(norm(x), plain(x))


def test_moments_over_ranks_are_those_of_one(monkeypatch):
    """The formula for several ranks, on one."""
    norm, x = BatchNorm(3).double(), randn(4, 3, 5, 2).requires_grad_(True)
    torch.testing.assert_close(norm._over_ranks(x, 1 + norm.gain), norm(x))
    assert gradgradcheck(lambda x: norm._over_ranks(x, None), (x,), fast_mode=True)


def test_conditional_batch_norm():
    layer = ConditionalBatchNorm(3, lambda channels: torch.nn.Linear(2, channels, bias=False)).double()
    x, c = randn(4, 3, 5, 2), randn(4, 2)
    plain = F.batch_norm(x, None, None, training=True)
    gain, bias = c @ layer.gain.weight.T, c @ layer.bias.weight.T
    torch.testing.assert_close(layer(x, c), plain * (1 + gain)[:, :, None, None] + bias[:, :, None, None])
    inputs = x.requires_grad_(True), c.requires_grad_(True)
    assert gradcheck(layer, inputs, fast_mode=True) and gradgradcheck(layer, inputs, fast_mode=True)


def test_values_that_are_not_finite_leave_the_running_moments():
    norm = BatchNorm(2)
    with collect_statistics(norm):
        norm(torch.full((2, 2, 3, 3), float("nan")))
    commit_statistics(norm, 2, lambda total: total)
    assert norm.mean.tolist() == [0, 0] and norm.variance.tolist() == [1, 1]


def test_variances_of_constant_channels_are_not_negative():
    norm = BatchNorm(1280)
    x = torch.linspace(0, 40, 1280)[None, :, None, None].expand(8, 1280, 5, 5)
    measure_standing_statistics(norm, [lambda: norm(x)] * 3, 24)
    assert norm.variance.min() >= 0 and norm.eval()(x).isfinite().all()


def test_standing_statistics_are_those_of_all_passes():
    network = torch.nn.Sequential(BatchNorm(2, affine=False), torch.nn.ReLU(), BatchNorm(2)).double().eval()
    network[0].mean.fill_(7)
    batches = [randn(8, 2, 3, 3) + k for k in range(5)]
    measure_standing_statistics(network, [lambda x=x: network(x) for x in batches], 40)
    everything = torch.cat(batches)
    torch.testing.assert_close(network[0].mean, everything.mean((0, 2, 3)))
    torch.testing.assert_close(network[0].variance, everything.var((0, 2, 3), unbiased=False))
    hidden = torch.cat([F.relu(F.batch_norm(x, None, None, training=True, eps=1e-5)) for x in batches])
    torch.testing.assert_close(network[2].mean, hidden.mean((0, 2, 3)))
    assert not any(m.training for m in network) and network[0].momentum == 0.1


# ---------------------------------------------------------------------------------------- self-attention


@pytest.mark.parametrize("pooled", [False, True])
def test_attention_against_its_equations(pooled):
    layer = SelfAttention(16, pooled).double()
    layer.gamma.data.fill_(0.7)
    x = randn(2, 16, 4, 6)
    f, g, h, v = (m.effective(torch.float64)[0][:, :, 0, 0] for m in (layer.key, layer.query, layer.value, layer.out))
    assert h.shape[0] == (8 if pooled else 2)

    def at(weight, pool):
        y = torch.einsum("oc,nchw->nohw", weight, x)
        return (F.max_pool2d(y, 2) if pool else y).flatten(2)

    expected = torch.empty(2, 16, 24, dtype=torch.float64)
    keys, queries, values = at(f, pooled), at(g, False), at(h, pooled)
    for n in range(2):
        for j in range(24):
            scores = torch.stack([keys[n, :, i] @ queries[n, :, j] for i in range(keys.shape[2])])
            beta = scores.exp() / scores.exp().sum()
            found = sum(beta[i] * values[n, :, i] for i in range(len(beta)))
            expected[n, :, j] = 0.7 * (v @ found) + x.flatten(2)[n, :, j]
    torch.testing.assert_close(layer(x).flatten(2), expected)


def test_attention_starts_as_the_identity_and_is_twice_differentiable():
    layer, x = SelfAttention(8).double(), randn(1, 8, 3, 2).requires_grad_(True)
    assert torch.equal(layer(x), x)
    layer.gamma.data.fill_(0.5)
    assert gradcheck(layer, (x,), fast_mode=True) and gradgradcheck(layer, (x,), fast_mode=True)
