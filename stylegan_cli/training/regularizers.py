"""Gradient penalties: R1, R2 and WGAN-GP for the discriminator, path length for the generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributed import sum_over_ranks
from .guard import finite_or


def gradient_penalty(
    logits: Tensor,  # [N, 1] D(images)
    images: Tensor,  # [N, C, H, W] requiring gradients
) -> Tensor:  # [N]
    """|| dD/dx ||^2: R1 at real images, R2 at generated ones (Mescheder et al. 2018, equations 9 and 10, without the
    factor gamma / 2). D is the sum of all outputs: with batch normalization each of them depends on every image."""
    return _input_gradient(logits, images).square().sum([1, 2, 3])


def wgan_gp(
    logits: Tensor,  # [N, 1] D(images)
    images: Tensor,  # [N, C, H, W] from `interpolate_images`, requiring gradients
) -> Tensor:  # [N]
    """(|| dD/dx || - 1)^2 (Gulrajani et al. 2017, equation 3, without the factor lambda)."""
    # vector_norm has a gradient of 0 at 0; a square root would not have a finite one.
    return (torch.linalg.vector_norm(_input_gradient(logits, images), dim=(1, 2, 3)) - 1).square()


def interpolate_images(
    real: Tensor,  # [N, C, H, W]
    fake: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [N] of the real images, uniform in 0 ... 1
) -> Tensor:  # [N, C, H, W]
    """u real + (1 - u) fake: where WGAN-GP penalizes gradients (Gulrajani et al. 2017, algorithm 1)."""
    return torch.lerp(fake, real, weight[:, None, None, None])


def _input_gradient(logits: Tensor, images: Tensor) -> Tensor:  # [N, C, H, W] dD/dx, differentiable
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient


def path_lengths(
    images: Tensor,  # [N, C, H, W] G.synthesis(ws)
    ws: Tensor,  # [N, num_ws, w_dim] requiring gradients
    directions: Tensor,  # [N, C, H, W] N(0, 1)
    differentiable: bool = True,
) -> Tensor:  # [N]
    """|| J_w^T y ||, y normal with variance 1 / (H W), root mean square over the ws of an image
    (Karras et al. 2020, section 3.2, equation 4)."""
    y = directions / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=differentiable)
    return gradient.square().sum(2).mean(1).sqrt()


class PathLengthMean:
    """The running mean a of path lengths; the penalty is (length - a)^2.

    As in the code of StyleGAN2, a step first moves a toward the mean length of its batch, then takes the penalty
    against the moved a, and the gradient also goes through a. The batch is that of all parts and ranks: `move` needs
    their mean before the loss of the first part.
    """

    def __init__(
        self,
        decay: float,  # weight of the newest batch
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.decay = decay
        # Updated in place, as CUDA graphs hold their addresses.
        self.mean = torch.zeros([], device=device, dtype=dtype)
        self._above = torch.zeros_like(self.mean)  # mean length of the batch - moved mean

    def move(
        self,
        total: Tensor,  # [] sum of the lengths on this rank
        count: int,  # images over all ranks
    ) -> None:
        length = sum_over_ranks(total.detach().clone()) / count
        new = self.mean.lerp(length, self.decay)
        self.mean.copy_(finite_or(new, self.mean))
        self._above.copy_(length - self.mean)

    def penalty(
        self,
        lengths: Tensor,  # [N] of any part of the batch
    ) -> Tensor:  # [N]
        """(length - a)^2. Over the whole batch the gradients add up to those of the sum with a = (1 - decay) a_before
        + decay mean(lengths): d/da sum (length_i - a)^2 = -2 N (mean length - a), and da/d length_k = decay / N."""
        through_mean = -2 * self.decay * self._above * (lengths - lengths.detach())
        return (lengths - self.mean).square() + through_mean

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])
