"""Fully connected layers whose factors are part of the matrix product, not operations of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from .requested import requested_gradients


def scaled_linear(
    x: Tensor,  # [N, I], or of several layers [L, N, I]
    w: Tensor,  # [O, I], or [L, O, I]
    b: Tensor | None = None,  # [O], or [L, O]
    w_gain: float = 1.0,  # factor on w
    b_gain: float = 1.0,  # factor on b
) -> Tensor:  # [N, O], or [L, N, O]
    """w_gain x w^T + b_gain b. Differentiable any number of times."""
    return _ScaledLinear.apply(x, w.mT, b, w_gain, b_gain)


# A product of matrices with a factor is closed under differentiation: y = f a b,  da = f dy b^T,  db = f a^T dy.


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, c, factor, c_factor):  # [(L,) N, K], [(L,) K, M], [(L,) M] or None -> [(L,) N, M]
        ctx.save_for_backward(a, b)
        ctx.factors, ctx.tensors = (factor, c_factor), (True, True, c is not None, False, False)
        beta, c = (0, a.new_empty([1])) if c is None else (c_factor, c)  # with beta 0, c is not read
        return (torch.addmm if a.ndim == 2 else torch.baddbmm)(c.unsqueeze(-2), a, b, beta=beta, alpha=factor)

    @staticmethod
    def backward(ctx, *grads):
        (dy,) = grads
        a, b = ctx.saved_tensors
        factor, c_factor = ctx.factors
        requested = requested_gradients(ctx, ctx.tensors)
        da = _ScaledLinear.apply(dy, b.mT, None, factor, 1.0) if requested[0] else None
        db = None
        if requested[1] and b.is_contiguous():
            db = _ScaledLinear.apply(a.mT, dy, None, factor, 1.0)
        elif requested[1]:  # in the layout of b, which is that of a parameter: its gradient is not copied
            db = _ScaledLinear.apply(dy.mT, a, None, factor, 1.0).mT
        dc = dy.sum(-2) if requested[2] else None
        return da, db, dc if dc is None or c_factor == 1 else dc * c_factor, None, None
