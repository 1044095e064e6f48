"""Perceptual path length (Karras et al. 2019, "A Style-Based Generator Architecture", section 4.1; its equations for
Z and W; end points and W for StyleGAN2: Karras et al. 2020, section 3):

PPL = E [ d(g(x(t)), g(x(t + ε))) / ε² ],   ε = 1e-4

d is LPIPS with VGG16 (Zhang et al. 2018). The path x runs from one latent to another, in Z along the sphere (slerp),
in W along a line (lerp); t ~ U(0, 1) for the full path, 0 for its end. The mean leaves out what lies below the 1st and
above the 99th percentile.

As the papers' own implementation does it: g in float32; both ends with the same class and the same noise (theirs is
drawn for each batch, ours for each pair, so that no batch matters); pictures not cut off at black and white; the crop,
rows 3/8 to 7/8 and columns 2/8 to 6/8, comes first, then whole numbers of pixels are averaged while the height is
above 256 (a later port divides by the factor of the uncropped picture: 128 pixels of a cropped 1024).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..data.images import to_rgb
from ..models.generator import Generator
from ..sampling import counter
from ..sampling.interpolate import lerp, slerp
from ..sampling.latents import draw_noise
from .registry import Path
from .stream import Finite, draw_labels

EPSILON = 1e-4
SMALLEST = 16  # pixels that VGG16 needs


def perceptual_path_length(
    distances: Tensor,  # [N] d / ε² of each pair
) -> float:
    """The mean between the percentiles, each of which is one of the distances."""
    d = distances.double().numpy()
    low, high = np.percentile(d, 1, method="lower"), np.percentile(d, 99, method="higher")
    return float(d[(d >= low) & (d <= high)].mean())


class PathPairs:
    """Distances of pairs of pictures, by the pair's place: the same for any batch and on any rank."""

    def __init__(
        self,
        G: Generator,
        lpips: Callable[[Tensor, Tensor], Tensor],  # two [N, 3, H, W] in [-1, 1] -> [N]
        path: Path,
        classes: Tensor | None,  # as for `Fakes`
        device: torch.device,
        seed: int = 0,
        truncation_psi: float = 1.0,
    ):
        self.G, self.lpips, self.path, self.classes = G, lpips, path, classes
        self.device, self.seed, self.psi = device, seed, truncation_psi
        self.finite = Finite(device)
        self.check = self.finite.check

    def __call__(
        self,
        index: Tensor,  # [n] int64
    ) -> Tensor:  # [n] d / ε²
        index = index.to(self.device)
        noise = [torch.cat([x, x]) for x in draw_noise(self.G, self.seed, "metrics.noise", index)]
        images = self.G.synthesis(torch.cat(self.ends(index)), noise=noise)
        self.finite.add(images)
        images = to_rgb(shrink(face_centre(images) if self.path.crop else images))
        return self.lpips(*images.chunk(2)).reshape(-1) / EPSILON**2

    def ends(
        self,
        index: Tensor,  # [n] int64
    ) -> tuple[Tensor, Tensor]:  # two [n, num_ws, w_dim]
        """The latents at t and t + ε."""
        z = [counter.normal(self.seed, f"metrics.path.{k}", index, (self.G.config.z_dim,)) for k in "ab"]
        t = counter.uniform(self.seed, "metrics.path.t", index, (1,)).double() * self.path.full
        c = draw_labels(self.G, self.classes, self.seed, index)
        both = None if c is None else torch.cat([c, c])
        if self.path.space == "z":
            z = [slerp(*z, t), slerp(*z, t + EPSILON)]
        a, b = self.G.mapping(torch.cat(z), both, self.psi).chunk(2)
        if self.path.space == "z":
            return a, b
        t = t[..., None]  # [n, 1, 1]
        return lerp(a, b, t), lerp(a, b, t + EPSILON)


def face_centre(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H/2, W/2]
    h, w = images.shape[2] // 8, images.shape[3] // 8
    return images[:, :, 3 * h : 7 * h, 2 * w : 6 * w]


def shrink(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H/f, W/f], f = H // 256, at least 1
    factor = images.shape[2] // 256
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images
