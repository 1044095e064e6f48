"""The weights of several convolutions, scaled and rounded to the type of their images in one launch.

    w' = gain w,   dw = gain (g1 + g2)

Each w' is returned twice: in a penalty on gradients, a convolution passes back one gradient of its weights and that of
its images another. Those of the second arrive as g2, and the launch that scales them adds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .dispatch import layout_of
from .modulation import HALF

ScaledWeight = tuple[Tensor, Tensor]  # [O, I, k, k] w' twice
MOST = 32  # tensors of a launch


def scaled_weights_of_layers(
    weights: Sequence[Tensor],  # [O, I, k, k] each, on the GPU
    gains: Sequence[float],  # of each
    dtype: torch.dtype,  # of w'
) -> list[ScaledWeight]:
    """Compute w' of every layer. Differentiable any number of times."""
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    dense = (w.to(acc).contiguous(memory_format=layout_of(w)) for w in weights)
    scaled = _ScaledWeights.apply(tuple(gains), dtype, *dense)
    return list(zip(scaled[: len(weights)], scaled[len(weights) :], strict=True))


class _ScaledWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gains, dtype, *weights):  # [O, I, k, k] each -> every w', and every w' again
        ctx.set_materialize_grads(False)
        ctx.gains, ctx.dtype, ctx.layouts = gains, weights[0].dtype, [layout_of(w) for w in weights]
        scaled = _launch(weights, (), gains, dtype)
        return *scaled, *(w.detach() for w in scaled)

    @staticmethod
    def backward(ctx, *grads):
        count, gradients = len(ctx.gains), [None] * len(ctx.gains)
        pairs = [[g for g in pair if g is not None] for pair in zip(grads[:count], grads[count:], strict=True)]
        for parts in (1, 2):
            which = [i for i, pair in enumerate(pairs) if len(pair) == parts]
            if which:
                tensors = [
                    pairs[i][part].contiguous(memory_format=ctx.layouts[i]) for part in range(parts) for i in which
                ]
                sums = _ScaledSums.apply(tuple(ctx.gains[i] for i in which), ctx.dtype, *tensors)
                for i, total in zip(which, sums, strict=True):
                    gradients[i] = total
        return None, None, *gradients


class _ScaledSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gains, dtype, *tensors):  # every a and every b, or every a -> gain (a + b)
        ctx.gains, ctx.dtype, ctx.parts = gains, tensors[0].dtype, len(tensors) // len(gains)
        return tuple(_launch(tensors[: len(gains)], tensors[len(gains) :], gains, dtype))

    @staticmethod
    def backward(ctx, *grads):
        dense = (g.contiguous(memory_format=layout_of(g)) for g in grads)
        return None, None, *_ScaledSums.apply(ctx.gains, ctx.dtype, *dense) * ctx.parts


def _launch(
    a: Sequence[Tensor],  # all of one type
    b: Sequence[Tensor],  # like a, or none
    gains: Sequence[float],
    dtype: torch.dtype,
) -> list[Tensor]:  # gain (a + b)
    half, parts = HALF.index(dtype) + 1 if dtype in HALF else 0, range(0, len(a), MOST)
    cut = (([*t[i : i + MOST]] for t in (a, b, gains)) for i in parts)
    return [out for lists in cut for out in torch.ops.sgan.scaled_sums(*lists, half)]


# The kernel: csrc/scaled_sums.cu, bound by csrc/library_training.cpp. `half` as in modulation.py.

torch.library.define("sgan::scaled_sums", "(Tensor[] a, Tensor[] b, float[] gain, int half) -> Tensor[]")


@torch.library.register_fake("sgan::scaled_sums")
def _(a, b, gain, half):
    acc = torch.float64 if a[0].dtype == torch.float64 else torch.float32
    return [torch.empty_like(t, dtype=HALF[half - 1] if half else acc) for t in a]
