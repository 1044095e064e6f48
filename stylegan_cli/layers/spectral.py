"""Layers with spectral normalization (Miyato et al. 2018, equation 8 and algorithm 1).

y = (W / sigma) x,   sigma = u^T W v,   v = W^T u / |W^T u|,   u <- W v / |W v|

The largest singular value sigma is a function of W with constant u and v. A step of the power iteration, which moves u,
belongs to a training step and not to a forward pass, whose number depends on the parts of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .initial import normal, orthogonal

_FIRST_ITERATIONS = 15  # so that sigma is right from the start


class Spectral(nn.Module):
    """A layer with a weight that may be normalized."""

    lr_multiplier = 1.0  # as of `EqualLinear`
    u: Tensor

    def __init__(
        self,
        weight: Tensor,  # [out, ...]
        bias: bool,
        spectral: bool,  # whether it is normalized
    ):
        super().__init__()
        self.weight, self.spectral = nn.Parameter(weight), spectral
        self.bias = nn.Parameter(torch.zeros(len(weight))) if bias else None
        if spectral:
            self.register_buffer("u", normal(len(weight)))
            if not weight.is_meta:
                self.iterate(_FIRST_ITERATIONS)

    @property
    def weight_gain(self) -> Tensor | float:  # []
        """1 / sigma, differentiable in the weight."""
        if not self.spectral:
            return 1.0
        matrix = self.weight.flatten(1)
        u = self.u.to(matrix.dtype)
        with torch.no_grad():
            v = F.normalize(u @ matrix, dim=0)
        return (u @ (matrix @ v)).reciprocal()

    @torch.no_grad()
    def iterate(self, steps: int = 1) -> None:
        matrix = self.weight.flatten(1)
        for _ in range(steps):
            v = F.normalize(self.u.to(matrix.dtype) @ matrix, dim=0)
            self.u.copy_(F.normalize(matrix @ v, dim=0))

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The normalized weight and the bias, in the type of the input."""
        return (self.weight * self.weight_gain).to(dtype), None if self.bias is None else self.bias.to(dtype)


class SpectralLinear(Spectral):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        spectral: bool = True,
    ):
        super().__init__(orthogonal(out_features, in_features), bias, spectral)

    def forward(
        self,
        x: Tensor,  # [N, in_features]
    ) -> Tensor:  # [N, out_features]
        return F.linear(x, *self.effective(x.dtype))


class SpectralConv2d(Spectral):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # odd
        bias: bool = True,
        spectral: bool = True,
    ):
        super().__init__(orthogonal(out_channels, in_channels, kernel, kernel), bias, spectral)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H, W]
        return F.conv2d(x, *self.effective(x.dtype), padding=self.weight.shape[2] // 2)


def iterate_power(
    network: nn.Module,
) -> None:
    """Take a step of the power iteration of all layers of a network, after an update of its weights."""
    for module in network.modules():
        if isinstance(module, Spectral) and module.spectral:
            module.iterate()
