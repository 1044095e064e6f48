"""Penalties on gradients: R1 for the discriminator, path length for the generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributed import sum_over_ranks
from ..ops import feature_gradients_only
from .guard import finite_or


def r1_penalty(
    logits: Tensor,  # [N, 1] D(images)
    images: Tensor,  # [N, C, H, W] real pictures that require a gradient
) -> Tensor:  # [N]
    """|| dD/dx ||^2 at real pictures (Mescheder et al. 2018, equation 9, without the factor gamma / 2)."""
    with feature_gradients_only():
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum([1, 2, 3])


def path_lengths(
    images: Tensor,  # [N, C, H, W] G.synthesis(ws)
    ws: Tensor,  # [N, num_ws, w_dim] that require a gradient
    directions: Tensor,  # [N, C, H, W] N(0, 1)
) -> Tensor:  # [N]
    """|| J_w^T y ||, y normal with variance 1 / (H W), mean square over the ws of a picture
    (Karras et al. 2020, section 3.2, equation 4)."""
    y = directions / math.sqrt(images.shape[2] * images.shape[3])
    with feature_gradients_only():
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


class PathLengthMean:
    """The running mean a that path lengths are held to: the penalty is (length - a)^2.

    `penalty` uses the mean of the steps before, so that accumulated parts of a batch see the same one; `update`
    then moves it by the mean over the whole batch of all ranks.
    """

    def __init__(
        self,
        decay: float,  # weight of the newest batch
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.decay = decay
        self.mean = torch.zeros([], device=device, dtype=dtype)  # changed in place: CUDA graphs know its address

    def penalty(
        self,
        lengths: Tensor,  # [N]
    ) -> Tensor:  # [N]
        return (lengths - self.mean).square()

    def update(
        self,
        total: Tensor,  # [] sum of the lengths on this rank
        count: int,  # pictures over all ranks
    ) -> None:
        new = self.mean.lerp(sum_over_ranks(total.detach().clone()) / count, self.decay)
        self.mean.copy_(finite_or(new, self.mean))

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])
