"""Images of a moved input, compared with the moved images of the input at rest. equivariance.py has the protocol."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..models.generator import Generator
from ..ops import to_float64
from ..sampling import counter
from .metric import Motion
from .resampling import limit_to_rotation, rotate, shift, shift_by_fraction
from .stream import ModelSamples

MAX_SHIFT = 1 / 8  # of the image
_MAX_ANGLE = math.pi


class MotionErrors(ModelSamples):
    """The error of each image by its index, independent of batch size and rank."""

    def __init__(
        self,
        G: Generator,  # with an input that can be moved
        motion: Motion,
        *sampling: Any,  # arguments of `ModelSamples` after G
    ):
        super().__init__(G, *sampling)
        self.motion: Motion = motion
        self.sides = G.config.width, G.config.height

    def __call__(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor:  # [n, 2] float64
        """Return the sum of squared errors and the number of values that it is a sum of."""
        index = index.to(self.device)
        z = counter.normal(self.seed, "metrics.z", index, (self.G.config.z_dim,))
        ws, noise = self.G.mapping(z, self.labels(index), self.psi), self.noise(index)
        amounts = self.sample(index)
        still = self.synthesize(ws, noise)
        moved = self.synthesize(ws, noise, transform=input_transform(self.motion, amounts, self.sides).to(ws))
        return squared_errors(*compare(self.motion, still, moved, amounts))

    def sample(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor:  # [n, 2] float64, pixels to the right and down; or [n] angles
        """Sample the motion of each image."""
        if self.motion == "rotate":
            return (2 * to_float64(counter.uniform(self.seed, "metrics.motion", index)) - 1) * _MAX_ANGLE
        u = 2 * to_float64(counter.uniform(self.seed, "metrics.motion", index, (2,))) - 1
        pixels = u * MAX_SHIFT * torch.tensor(self.sides).to(u)
        return pixels.round() if self.motion == "int" else pixels


def input_transform(
    motion: Motion,
    amounts: Tensor,  # [N, 2] pixels to the right and down, or [N] angles counter-clockwise
    sides: tuple[int, int],  # width and height of the images
) -> Tensor:  # [N, 3, 3]
    """The input transform that moves a generator's images: the inverse of their motion, in image widths and heights."""
    matrix = torch.eye(3, dtype=amounts.dtype, device=amounts.device).repeat(len(amounts), 1, 1)
    if motion == "rotate":
        matrix[:, 0, 0] = matrix[:, 1, 1] = amounts.cos()
        matrix[:, 1, 0] = amounts.sin()
        matrix[:, 0, 1] = -amounts.sin()
    else:
        matrix[:, :2, 2] = -amounts / torch.tensor(sides).to(amounts)
    return matrix


def compare(
    motion: Motion,
    still: Tensor,  # [N, C, H, W], of the input at rest
    moved: Tensor,  # [N, C, H, W], of the moved input
    amounts: Tensor,  # see `input_transform`
) -> tuple[Tensor, Tensor, Tensor]:  # reference, image [N, C, H, W], mask [N, 1, H, W]
    """Move the images of the input at rest, and return what is to be equal, and where."""
    if motion == "int":
        reference, mask = shift(still, amounts.long().to(still.device))
        return reference, moved, mask
    if motion == "frac":
        reference, mask = shift_by_fraction(still, amounts)
        return reference, moved, mask
    reference, mask = rotate(still, amounts)
    image, inside = limit_to_rotation(moved, amounts)
    return reference, image, mask * inside


def squared_errors(
    reference: Tensor,  # [N, C, H, W]
    image: Tensor,  # [N, C, H, W]
    mask: Tensor,  # [N, 1, H, W]
) -> Tensor:  # [N, 2] float64
    """Return the sum of squared errors of each image, and the number of values that it is a sum of."""
    squares = (to_float64(reference - image).square() * to_float64(mask)).flatten(1).sum(1)
    return torch.stack([squares, to_float64(mask).flatten(1).sum(1) * image.shape[1]], 1)
