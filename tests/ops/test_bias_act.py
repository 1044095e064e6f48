"""y = clamp(gain act(x + b)) and its first two derivatives, in every implementation."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_cli import ops
from stylegan_cli.ops import bias_act
from stylegan_cli.ops.bias_act import ACTIVATIONS

PIECEWISE = ["linear", "relu", "lrelu"]


def test_activations_and_their_gains(dense):
    assert set(ACTIVATIONS) == set(dense.acts)
    assert {name: spec.gain for name, spec in ACTIVATIONS.items()} == {n: g for n, (_, g) in dense.acts.items()}


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 5), (2, 4, 3, 5)])
def test_equation(dense, random, act, shape):
    x, b = random(*shape), random(shape[1])
    for options in ({}, {"gain": 3}, {"clamp": 0.5}, {"gain": 0.7, "clamp": 0.4}):
        y = bias_act(x, b, act=act, **options)
        assert y.shape == x.shape and y.dtype == x.dtype
        assert torch.allclose(y, torch.from_numpy(dense.bias_act(x, b, act, **options)), rtol=1e-13, atol=1e-13)
    y = bias_act(x, act=act)
    assert torch.allclose(y, torch.from_numpy(dense.bias_act(x, None, act)), rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("alpha", [0, 0.1, 1.5, -0.5])
def test_slope_of_lrelu(dense, random, alpha):
    x, b = random(2, 3, 4, 4), random(3)
    y = bias_act(x, b, act="lrelu", alpha=alpha)
    assert torch.allclose(y, torch.from_numpy(dense.bias_act(x, b, "lrelu", alpha=alpha)), rtol=1e-13)


@pytest.mark.parametrize("gain", [0, -2])
def test_zero_and_negative_gains(random, gain):
    x = random(2, 3, 4, 4, requires_grad=True)
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            results.append(bias_act(x, act="lrelu", gain=gain, clamp=1))
    assert torch.equal(*results)
    assert torch.equal(*(torch.autograd.grad(y.sum(), x)[0] for y in results))


def test_default_gains_keep_the_second_moment(random):
    x = random(1, 1, 400, 400)
    for act in ("linear", "relu", "lrelu"):
        assert bias_act(x, act=act).square().mean() == pytest.approx(1, abs=0.05)
    assert ACTIVATIONS["lrelu"].alpha == 0.2 and ACTIVATIONS["lrelu"].gain == math.sqrt(2)


@pytest.mark.usefixtures("implementation")
def test_inputs_are_not_modified(random):
    x, b = random(2, 3, 4, 4), random(3)
    before = x.clone(), b.clone()
    bias_act(x, b, act="lrelu", clamp=0.1)
    bias_act(x, act="lrelu")
    assert torch.equal(x, before[0]) and torch.equal(b, before[1])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_derivatives(random, act, clamp):
    x, b = random(2, 3, 2, 3, requires_grad=True), random(3, requires_grad=True)

    def function(x, b):
        return bias_act(x, b, act=act, gain=1.3, clamp=clamp)

    assert gradcheck(function, (x, b))
    assert gradgradcheck(function, (x, b))


@pytest.mark.parametrize("act", PIECEWISE)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_auto_equals_the_reference_in_all_derivatives(random, act, shape):
    x, b = random(*shape, requires_grad=True), random(3, requires_grad=True)
    dy, ddx = random(*shape, requires_grad=True), random(*shape)
    results = []
    for implementation in ("auto", "reference"):
        with ops.use(implementation):
            y = bias_act(x, b, act=act, clamp=1)
        dx, db = torch.autograd.grad((y.sin() * dy).sum(), (x, b), create_graph=True)
        second = torch.autograd.grad((dx * ddx).sum() + db.square().sum(), (x, b, dy))
        results.append((y, dx, db, *second))
    for auto, reference in zip(*results):
        assert torch.allclose(auto, reference, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_half_precision(random, rms_error, dtype, act):
    x, b = random(2, 3, 16, 16).to(dtype), random(3).to(dtype)
    with ops.use("reference"):
        exact = bias_act(x.float(), b.float(), act=act, clamp=2)
    plain = (ACTIVATIONS[act].function(x + b[None, :, None, None], 0.2) * ACTIVATIONS[act].gain).clamp(-2, 2)
    result = bias_act(x, b, act=act, clamp=2)
    assert result.dtype == dtype
    assert rms_error(result, exact) <= 2 * rms_error(plain, exact)


@pytest.mark.usefixtures("implementation")
def test_channels_last_stays_channels_last(random):
    x, b = random(2, 3, 4, 5), random(3)
    y = bias_act(x.contiguous(memory_format=torch.channels_last), b, act="lrelu", clamp=1)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, bias_act(x, b, act="lrelu", clamp=1))


@pytest.mark.usefixtures("implementation")
def test_expanded_input(random):
    x = random(1, 3, 4, 4).expand(2, -1, -1, -1)
    assert torch.equal(bias_act(x, act="lrelu"), bias_act(x.contiguous(), act="lrelu"))


def test_unknown_activation():
    with pytest.raises(ValueError, match="act must be one of linear, .*, not 'gelu'"):
        bias_act(torch.zeros(1, 2), act="gelu")


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), ()])
def test_bias_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"b must have shape \[2\]"):
        bias_act(torch.zeros(1, 2, 3, 3), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clamp", [0.7, 0.3, 181.02])
def test_no_gradient_through_a_clamp_bound_rounded_to_half_precision(dtype, clamp):
    x = torch.full((1, 1), 2 * clamp, dtype=dtype, requires_grad=True)
    bias_act(x, act="lrelu", clamp=clamp).sum().backward()
    assert x.grad.item() == 0
