"""Run every kernel once on small, awkward shapes, for compute-sanitizer.

compute-sanitizer --tool memcheck python benchmarks/_exercise.py
"""

from __future__ import annotations

import itertools

import torch

from stylegan_cli.ops import (
    add_skip,
    bias_act,
    filtered_lrelu,
    fir_filter,
    lowpass_filter,
    modulated_conv2d,
    upfirdn2d,
    use,
)
from stylegan_cli.ops.bias_act import ACTIVATIONS

LAYOUTS = (torch.contiguous_format, torch.channels_last)
DTYPES = (torch.float32, torch.float16)


def randn(device, dtype, layout, *shape):
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)


def exercise_bias_act(device: str) -> None:
    """Forward, backward and double backward."""
    for act, dtype, layout, c in itertools.product(ACTIVATIONS, DTYPES, LAYOUTS, (3, 16)):
        x = randn(device, dtype, layout, 2, c, 7, 9).requires_grad_(True)
        b = torch.randn(c, device=device).to(dtype).requires_grad_(True)
        y = bias_act(x, b, act=act, clamp=1.5)
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        dx.square().sum().backward()


def exercise_add_skip(device: str) -> None:
    """Forward and backward, with rows that are no whole vectors."""
    f = fir_filter((1, 3, 3, 1)).to(device)
    for dtype, layout, width in itertools.product(DTYPES, LAYOUTS, (8, 18)):
        x = randn(device, dtype, layout, 2, 3, 14, width).requires_grad_(True)
        below = randn(device, torch.float32, layout, 2, 3, 7, width // 2).requires_grad_(True)
        add_skip(x, torch.randn(3, device=device), below, f, 1.5).square().sum().backward()


def exercise_upfirdn2d(device: str) -> None:
    """Forward and backward, with cropping."""
    filters = [fir_filter((1, 3, 3, 1)), fir_filter(range(1, 13)), torch.rand(3, 4)]
    for f, (up, down), layout in itertools.product(filters, ((2, 1), (1, 2), (1, 1), (3, 2)), LAYOUTS):
        for dtype in DTYPES:
            x = randn(device, dtype, layout, 2, 5, 17, 35).requires_grad_(True)
            upfirdn2d(x, f.to(device), up, down, (5, 4, -1, 6)).square().sum().backward()


def exercise_filtered_lrelu(device: str) -> None:
    """Forward and backward: layers of StyleGAN3 with one and with several steps, and other filters."""
    layers = [(2, 12, (9, 8)), (2, 12, (11, 10)), (4, 24, (-6, -9)), (4, 24, (1, 2)), (1, 5, (3, 4))]
    for (up, taps, pad), radial, layout, dtype in itertools.product(layers, (False, True), LAYOUTS, DTYPES):
        fu = lowpass_filter(taps, 0.25 / up, 0.1, 1).to(device)
        fd = lowpass_filter(12, 0.2, 0.1, 1, radial).to(device)
        x = randn(device, dtype, layout, 2, 5, 17, 35).requires_grad_(True)
        b = torch.randn(5, device=device).to(dtype).requires_grad_(True)
        filtered_lrelu(x, b, fu, fd, up, 2, pad * 2, clamp=1).square().sum().backward()


def exercise_modulated_conv2d(device: str, dtype: torch.dtype) -> None:
    """Forward pass of the fused kernel; its derivatives use other operators."""
    f = fir_filter((1, 3, 3, 1)).to(device)
    for (i, o), (h, w), (k, up) in itertools.product(((24, 40), (64, 3)), ((5, 7), (16, 16)), ((3, 1), (3, 2), (1, 1))):
        x = randn(device, dtype, torch.channels_last, 2, i, h, w)
        weight, style, b = (torch.randn(s, device=device) for s in ((o, i, k, k), (2, i), (o,)))
        noise = torch.randn(1, 1, h * up, w * up, device=device)
        modulated_conv2d(x, weight, style, up=up, f=f, noise=noise, b=b, act="lrelu", clamp=256)


def main(device: str = "cuda") -> None:
    torch.manual_seed(0)
    kernels, fused, half = ("cuda", "fused", torch.float16) if device == "cuda" else ("auto", "auto", torch.float32)
    with use(kernels):
        exercise_bias_act(device)
        exercise_add_skip(device)
        exercise_upfirdn2d(device)
        exercise_filtered_lrelu(device)
    with torch.no_grad(), use(fused):
        exercise_modulated_conv2d(device, half)
    if device == "cuda":
        torch.cuda.synchronize()
    print("every kernel ran")


if __name__ == "__main__":
    main()
