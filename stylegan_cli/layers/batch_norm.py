"""Batch normalization (Ioffe and Szegedy 2015), with a gain and a bias that are learned or depend on a condition.

y = (1 + gain) (x - mean) / sqrt(variance + eps) + bias

In training mode mean and variance are those of the images at hand on all ranks; otherwise running ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributed import differentiable_sum_over_ranks, world_size
from .statistics import RunningMean, collect_statistics, commit_statistics

EPS = 1e-5


class BatchNorm(RunningMean):
    mean: Tensor  # [channels]
    variance: Tensor

    def __init__(
        self,
        channels: int,
        affine: bool = True,  # whether gain and bias are learned
        momentum: float = 0.1,  # weight of the newest batch in the running moments
    ):
        super().__init__()
        self.momentum = momentum
        self.gain = nn.Parameter(torch.zeros(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
    ) -> Tensor:  # [N, channels, H, W]
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))
        gain = None if self.gain is None else 1 + self.gain
        if self.collecting:
            self._collect_moments(x.detach())
        if not self.training:
            return F.batch_norm(x, self.mean.to(x.dtype), self.variance.to(x.dtype), gain, self.bias, eps=EPS).to(dtype)
        if world_size() == 1:
            return F.batch_norm(x, None, None, gain, self.bias, training=True, eps=EPS).to(dtype)
        return self._over_ranks(x, gain).to(dtype)

    def _over_ranks(self, x: Tensor, gain: Tensor | None) -> Tensor:
        mean = differentiable_sum_over_ranks(x.mean((0, 2, 3))) / world_size()
        centered = x - mean[:, None, None]
        variance = differentiable_sum_over_ranks(centered.square().mean((0, 2, 3))) / world_size()
        y = centered * (variance + EPS).rsqrt()[:, None, None]
        if gain is None or self.bias is None:
            return y
        return y * gain[:, None, None] + self.bias[:, None, None]

    def _collect_moments(self, x: Tensor) -> None:
        self.collect(torch.stack([x.mean((2, 3)), x.square().mean((2, 3))], 1))  # [N, 2, channels]

    def _update(
        self,
        mean: Tensor,  # [2, channels] of x and x^2 over a batch
        count: int,
    ) -> None:
        is_finite = mean.isfinite().all()
        values = mean[0], (mean[1] - mean[0].square()).clamp_min(0)  # rounding can make it negative
        for running, new in zip((self.mean, self.variance), values, strict=True):
            running.lerp_(torch.where(is_finite, new.to(running.dtype), running), self.momentum)


class ConditionalBatchNorm(nn.Module):
    """Gain and bias are linear functions of a condition (de Vries et al. 2017)."""

    def __init__(
        self,
        channels: int,
        make_linear: Callable[[int], nn.Module],  # number of channels -> linear map of the condition, without bias
    ):
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.gain, self.bias = make_linear(channels), make_linear(channels)

    def forward(
        self,
        x: Tensor,  # [N, channels, H, W]
        condition: Tensor,  # [N, features]
    ) -> Tensor:  # [N, channels, H, W]
        gain, bias = (f(condition).to(x.dtype)[:, :, None, None] for f in (self.gain, self.bias))
        return torch.addcmul(bias, self.norm(x), 1 + gain)


@torch.no_grad()
def measure_standing_statistics(
    network: nn.Module,
    batches: Iterable[Callable[[], object]],  # each is a forward pass over as many images
    count: int,  # images of all passes, over all ranks
    reduce: Callable[[Tensor], Tensor] = lambda total: total,  # sums over ranks
) -> None:
    """Replace the running moments by those over several batches of the present weights ("standing statistics", Brock et
    al. 2019, section 4.1). Has no effect on a network without batch normalization."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with contextlib.ExitStack() as stack:
        for norm, momentum in zip(norms, momenta, strict=True):
            stack.callback(setattr, norm, "momentum", momentum)
            stack.callback(norm.train, norm.training)
            norm.momentum = 1.0
            norm.train()
        with collect_statistics(network):
            for run in batches:
                run()
        commit_statistics(network, count, reduce)
