"""bfloat16 products: which convolutions use them, how exact they are, and on which processors they are preferred."""

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli import ops
from stylegan_cli.ops import bfloat16_products, conv2d_resample, prefers_bfloat16

CPU = torch.device("cpu")
CAPABILITIES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.fixture
def processor(monkeypatch):
    """Set what the processor says that it can do."""

    def set_capabilities(*names):
        for name in CAPABILITIES:
            monkeypatch.setattr(torch.cpu, name, lambda name=name: name in names, raising=False)

    return set_capabilities


def relative_error(y, exact):
    return ((y.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize(("capabilities", "expected"), [((), False), *(((name,), True) for name in CAPABILITIES)])
def test_preferred_where_the_processor_multiplies_in_bfloat16(processor, capabilities, expected):
    processor(*capabilities)
    assert prefers_bfloat16(CPU, 256, 256) is expected
    assert prefers_bfloat16(CPU, 128, 32) is expected and not prefers_bfloat16(CPU, 32, 32)
    assert prefers_bfloat16(CPU, 32, 32, training=True) is expected
    assert not prefers_bfloat16(CPU, 16, 16, training=True)
    assert not prefers_bfloat16(torch.device("cuda"), 256, 256)


def test_not_preferred_without_onednn_or_with_a_pytorch_that_cannot_tell(processor, monkeypatch):
    processor(*CAPABILITIES)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not prefers_bfloat16(CPU, 256, 256)
    monkeypatch.undo()
    for name in CAPABILITIES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not prefers_bfloat16(CPU, 256, 256)


@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}], ids=str)
def test_operands_and_result_are_rounded_and_nothing_else(random, resampling):
    x, w, f = random(2, 16, 8, 8).float(), random(24, 16, 3, 3).float(), torch.tensor([1.0, 3, 3, 1]) / 8
    exact = conv2d_resample(x.double(), w.double(), f.double(), **resampling)
    with bfloat16_products():
        y = conv2d_resample(x, w, f, **resampling)
    assert y.dtype == torch.float32
    assert 1e-4 < relative_error(y, exact) < 2**-8  # less where the processor multiplies in bfloat16
    if not resampling:
        rounded = F.conv2d(x.bfloat16().double(), w.bfloat16().double(), padding=1)
        assert (y - rounded).abs().max() <= rounded.abs().max() * 2**-8


@pytest.mark.parametrize(
    ("channels", "dtype", "min_height", "implementation"),
    [
        (15, torch.float32, 0, "auto"),
        (16, torch.float64, 0, "auto"),
        (16, torch.float32, 9, "auto"),
        (16, torch.float32, None, "auto"),
        (16, torch.float32, 0, "reference"),
    ],
)
def test_other_convolutions_are_not_affected(random, channels, dtype, min_height, implementation):
    x, w = random(1, channels, 8, 8).to(dtype), random(16, channels, 3, 3).to(dtype)
    with ops.use(implementation):
        expected = conv2d_resample(x, w)
        with bfloat16_products(min_height):
            assert torch.equal(conv2d_resample(x, w), expected)


def test_the_height_is_the_larger_of_input_and_output(random):
    x, w, f = random(1, 16, 8, 8).float(), random(16, 16, 3, 3).float(), torch.tensor([1.0, 3, 3, 1]) / 8
    for resampling, height in (({}, 8), ({"up": 2}, 16), ({"down": 2}, 8)):
        expected = conv2d_resample(x, w, f, **resampling)
        for lowest, changed in ((height, True), (height + 2, False)):
            with bfloat16_products(lowest):
                assert torch.equal(conv2d_resample(x, w, f, **resampling), expected) != changed


def test_gradients_to_the_second(random):
    x, w = (random(2, 16, 8, 8).float().requires_grad_(True), random(16, 16, 3, 3).float().requires_grad_(True))
    results = []
    for lowest in (None, 0):
        with bfloat16_products(lowest):
            y = conv2d_resample(x, w).square().sum()
        (dx,) = torch.autograd.grad(y, x, create_graph=True)  # outside of the context
        results.append((dx, *torch.autograd.grad(dx.square().sum(), (x, w))))
    for exact, rounded in zip(*results, strict=True):
        assert rounded.dtype == torch.float32 and 1e-4 < relative_error(rounded, exact) < 1e-2
