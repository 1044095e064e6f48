"""Pairs of images at both ends of a small step along a path of latents, and the distances between them.

As in the papers' own implementation: the generator runs in float32; both ends have the same class and the same noise
(NVIDIA samples it per batch, we per pair, so that the batch size does not matter); images are not clamped; the crop,
rows 3/8 to 7/8 and columns 2/8 to 6/8, comes first; then images higher than 256 are averaged by a whole factor (a later
port uses the factor of the uncropped image: a cropped 1024 becomes 128 pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.images import to_rgb
from ..models.generator import Generator
from ..sampling import counter
from ..sampling.interpolate import lerp, slerp
from .metric import LatentPath
from .perceptual_path_length import EPSILON
from .stream import ModelSamples


class PathPairs(ModelSamples):
    """Distances of pairs of images by the pair's index, independent of batch size and rank."""

    def __init__(
        self,
        G: Generator,
        lpips: Callable[[Tensor, Tensor], Tensor],  # two [N, 3, H, W] in [-1, 1] -> [N]
        path: LatentPath,
        *sampling: Any,  # arguments of `ModelSamples` after G
    ):
        super().__init__(G, *sampling)
        self.lpips, self.path = lpips, path

    def __call__(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor:  # [n]
        """Return d / ε² of each pair."""
        index = index.to(self.device)
        noise = [torch.cat([x, x]) for x in self.noise(index)]
        images = self.synthesize(torch.cat(self.ends(index)), noise)
        images = to_rgb(shrink(face_center(images) if self.path.crop else images))
        return self.lpips(*images.chunk(2)).reshape(-1) / EPSILON**2

    def ends(
        self,
        index: Tensor,  # [n] int64
    ) -> tuple[Tensor, Tensor]:  # two [n, num_ws, w_dim]
        """Return the latents at t and t + ε."""
        za, zb = (counter.normal(self.seed, f"metrics.path.{k}", index, (self.G.config.z_dim,)) for k in "ab")
        t = counter.uniform(self.seed, "metrics.path.t", index, (1,)).double() * self.path.full
        c = self.labels(index)
        both = None if c is None else torch.cat([c, c])
        if self.path.space == "z":
            za, zb = slerp(za, zb, t), slerp(za, zb, t + EPSILON)
        a, b = self.G.mapping(torch.cat([za, zb]), both, self.psi).chunk(2)
        if self.path.space == "z":
            return a, b
        t = t[..., None]  # [n, 1, 1]
        return lerp(a, b, t), lerp(a, b, t + EPSILON)


def face_center(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H/2, W/2]
    """Crop the center of an aligned face."""
    h, w = images.shape[2] // 8, images.shape[3] // 8
    return images[:, :, 3 * h : 7 * h, 2 * w : 6 * w]


def shrink(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H/f, W/f] with f = max(H // 256, 1)
    """Reduce to about 256 pixels by averaging."""
    factor = images.shape[2] // 256
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images
