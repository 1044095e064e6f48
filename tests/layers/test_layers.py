"""Every layer compared with its equation, in float64."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from stylegan_cli.layers import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    ToRGB,
    batched_styles,
    normalize_2nd_moment,
)
from stylegan_cli.ops import append_minibatch_std, conv2d_resample, scaled_linear, use

SQRT2 = math.sqrt(2)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def double(layer):
    """Convert to float64, and replace zeros (biases, noise strengths) with random numbers."""
    layer = layer.double()
    for p in layer.parameters():
        if not p.any():
            p.data.normal_()
    return layer


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def lrelu(x):
    return F.leaky_relu(x, 0.2) * SQRT2


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------------------------- fully connected


@pytest.mark.parametrize(("act", "function"), [("linear", lambda x: x), ("lrelu", lrelu)])
@pytest.mark.parametrize("lr", [1, 0.01])
def test_equal_linear(act, function, lr):
    layer, x = double(EqualLinear(5, 3, act=act, lr_multiplier=lr)), randn(4, 5)
    assert close(layer(x), function(x @ layer.weight.t() * (lr / math.sqrt(5)) + layer.bias * lr))


def test_equal_linear_without_bias():
    layer, x = double(EqualLinear(5, 3, bias=False)), randn(4, 5)
    assert layer.bias is None
    assert close(layer(x), x @ layer.weight.t() / math.sqrt(5))


@pytest.mark.parametrize("lr", [1, 0.01])
def test_equal_linear_starts_with_unit_variance(lr):
    layer = EqualLinear(400, 300, bias_init=1, lr_multiplier=lr)
    assert (layer(torch.zeros(1, 400)) - 1).abs().max() < 1e-6
    assert (layer.weight.std() * lr).item() == pytest.approx(1, abs=0.02)
    assert (layer(torch.randn(50, 400)) - 1).std().item() == pytest.approx(1, abs=0.05)


def test_the_learning_rate_multiplier_scales_steps():
    """A step of the parameters changes the effective weight by lr steps, in units of 1 / sqrt(fan_in)."""
    layer, x = double(EqualLinear(4, 1, bias=False, lr_multiplier=0.01)), torch.eye(4, dtype=torch.float64)
    before = layer(x).detach()
    layer.weight.data += 1
    assert close(layer(x).detach() - before, torch.full([4, 1], 0.01 / 2, dtype=torch.float64))


# -------------------------------------------------------------------------------------- convolution


@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}], ids=str)
def test_equal_conv(act, kernel, resampling):
    layer, x = double(EqualConv2d(3, 4, kernel, act=act, **resampling)), randn(2, 3, 6, 8)
    f = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
    with use("reference"):
        y = conv2d_resample(x, layer.weight / math.sqrt(3 * kernel**2), f, **resampling)
    y = y + layer.bias[None, :, None, None]
    assert close(layer(x), lrelu(y) if act == "lrelu" else y)


def test_equal_conv_gain_and_clamp():
    """The clamp is multiplied by the gain, so that a residual branch has a proportional bound."""
    layer, x = double(EqualConv2d(3, 4, 3, act="lrelu", clamp=1)), randn(2, 3, 6, 6)
    output = layer(x)
    assert output.abs().max() == 1
    assert close(layer(x, gain=0.5), output * 0.5)
    y = F.conv2d(x, layer.weight / math.sqrt(27), layer.bias, padding=1)
    assert close(output, lrelu(y).clamp(-1, 1))


def test_equal_conv_without_bias():
    layer, x = double(EqualConv2d(3, 4, 1, bias=False)), randn(2, 3, 4, 4)
    assert layer.bias is None
    assert close(layer(x), F.conv2d(x, layer.weight / math.sqrt(3)))


# ------------------------------------------------------------------------------ modulated by a style


def modulate_each(layer, x, style, f, demodulate):
    """Convolve one image at a time, with its own weights."""
    rows = []
    for image, s in zip(x, style):
        w = layer.weight * layer.weight_gain * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        up = getattr(layer, "up", 1)
        with use("reference"):
            rows.append(conv2d_resample(image[None], w, f, up=up))
    return torch.cat(rows)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("noise", [None, "one", "each"])
def test_modulated_conv(up, noise):
    layer = double(ModulatedConv2d(3, 4, 5, 6 * up, 8 * up, up=up))
    x, w = randn(2, 3, 6, 8), randn(2, 5)
    if noise is not None:
        noise = randn(1 if noise == "one" else 2, 1, 6 * up, 8 * up)
    style = w @ layer.affine.weight.t() / math.sqrt(5) + layer.affine.bias
    y = modulate_each(layer, x, style, layer.resample_filter, True)
    if noise is not None:
        y = y + layer.noise_strength * noise
    assert close(layer(x, w, noise), lrelu(y + layer.bias[None, :, None, None]))
    assert close(layer(x, w, noise, gain=0.3), 0.3 * lrelu(y + layer.bias[None, :, None, None]))


def test_modulated_conv_clamp():
    layer = double(ModulatedConv2d(3, 4, 5, 6, 6, clamp=0.5))
    x, w = randn(2, 3, 6, 6), randn(2, 5)
    assert layer(x, w, None).abs().max() == 0.5
    assert close(layer(x, w, None, gain=0.5), layer(x, w, None) * 0.5)


def test_initial_weights_of_modulated_conv():
    layer = ModulatedConv2d(3, 4, 5, 6, 8)
    assert layer.noise_strength.shape == () and layer.noise_strength == 0
    assert layer.noise_const.shape == (6, 8) and layer.noise_const.std() > 0.5
    assert torch.equal(layer.affine.bias, torch.ones(3)) and torch.equal(layer.bias, torch.zeros(4))
    assert set(layer.state_dict()) == {
        *("weight", "bias", "noise_strength", "noise_const", "affine.weight", "affine.bias")
    }


def test_to_rgb():
    layer, x, w = double(ToRGB(4, 3, 5)), randn(2, 4, 6, 8), randn(2, 5)
    style = w @ layer.affine.weight.t() / math.sqrt(5) + layer.affine.bias
    assert layer.weight_gain == 0.5
    assert close(layer(x, w), modulate_each(layer, x, style, None, False) + layer.bias[None, :, None, None])
    assert ToRGB(4, 3, 5, clamp=0.1)(x.float(), w.float()).abs().max().item() == pytest.approx(0.1)


def test_layers_are_differentiable():
    layer, x, w = double(ModulatedConv2d(2, 2, 3, 4, 4, up=2)), randn(1, 2, 2, 2), randn(1, 3)
    assert gradcheck(lambda x, w: layer(x, w, layer.noise_const[None, None]), (x.requires_grad_(), w.requires_grad_()))
    layer = double(EqualConv2d(2, 2, 3, act="lrelu", down=2))
    assert gradcheck(layer, (randn(1, 2, 4, 4).requires_grad_(),))


# ---------------------------------------------------------------------- minibatch standard deviation


@pytest.mark.parametrize(("n", "group"), [(8, 4), (8, 2), (8, None), (6, 3), (4, 8), (1, 4), (5, 1)])
@pytest.mark.parametrize("channels", [1, 2])
def test_minibatch_std(n, group, channels):
    x = randn(n, 4, 3, 5)
    y = append_minibatch_std(x, group, channels)
    assert y.shape == (n, 4 + channels, 3, 5)
    assert torch.equal(y[:, :4], x)
    size = min(group or n, n)
    groups = n // size
    for i in range(n):
        members = x[[j for j in range(n) if j % groups == i % groups]].numpy()
        assert len(members) == size
        for k in range(channels):
            part = members[:, k * 4 // channels : (k + 1) * 4 // channels]
            deviation = np.sqrt(part.var(axis=0) + 1e-8).mean()
            assert np.allclose(y[i, 4 + k].numpy(), deviation, rtol=1e-12)


@pytest.mark.parametrize("ranks", [2, 4])
def test_minibatch_std_does_not_depend_on_the_number_of_ranks(ranks):
    x = randn(8, 4, 3, 3)
    expected = append_minibatch_std(x, 2)
    for r in range(ranks):
        assert close(append_minibatch_std(x[r::ranks], 2), expected[r::ranks])


def test_minibatch_std_in_half_precision_does_not_overflow():
    x = torch.full([4, 2, 2, 2], 30000.0, dtype=torch.float16)
    x[::2] *= -1
    y = append_minibatch_std(x, 4)
    assert y.dtype == torch.float16 and (y[:, 2] == 30000).all()


def test_minibatch_std_is_differentiable_for_identical_images():
    x = torch.ones(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(append_minibatch_std(x, 4).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "group", "channels"), [(6, 4, 1), (4, 4, 3)])
def test_minibatch_std_refuses_indivisible_batches(n, group, channels):
    with pytest.raises(ValueError, match="does not divide"):
        append_minibatch_std(torch.zeros(n, 4, 2, 2), group, channels)


# ------------------------------------------------------------------------------------ normalization


def test_normalize_2nd_moment():
    x = randn(3, 7) * torch.tensor([[1e-3], [1], [1e3]], dtype=torch.float64)
    y = normalize_2nd_moment(x)
    expected = x.numpy() / np.sqrt(np.square(x.numpy()).mean(1, keepdims=True) + 1e-8)
    assert np.allclose(y.numpy(), expected, rtol=1e-12)
    assert y[1:].square().mean(1).tolist() == pytest.approx([1, 1])
    assert normalize_2nd_moment(torch.zeros(1, 4)).abs().sum() == 0


def test_batched_styles_are_those_of_each_layer():
    layers = [double(EqualLinear(4, features, bias_init=1)) for features in (5, 3, 5, 2)]
    ws = [randn(2, 4).requires_grad_(True) for _ in layers]
    leaves = [*ws, *(layer.weight for layer in layers), *(layer.bias for layer in layers)]
    results = []
    for styles in (batched_styles(layers, ws), [layer(w) for layer, w in zip(layers, ws)]):
        results.append((*styles, *torch.autograd.grad(sum(s.pow(3).sum() for s in styles), leaves)))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["one", "several"])
@pytest.mark.parametrize("bias", [True, False])
def test_scaled_linear(shape, bias):
    *layers, n = shape
    x, w = randn(*layers, n, 3).requires_grad_(True), randn(*layers, 4, 3).requires_grad_(True)
    leaves = (x, w, randn(*layers, 4).requires_grad_(True)) if bias else (x, w)

    def function(x, w, b=None):
        return scaled_linear(x, w, b, 0.3, 0.7)

    exact = 0.3 * x @ w.mT + (0.7 * leaves[2].unsqueeze(-2) if bias else 0)
    assert torch.allclose(function(*leaves), exact, rtol=1e-12)
    assert gradcheck(function, leaves) and gradgradcheck(function, leaves)
