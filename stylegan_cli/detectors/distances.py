"""Differentiable distances between images.

Each extracts features of images, once for a target, and computes the distance between two sets of features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ..data.images import to_rgb
from .frozen import full_precision
from .lpips import Lpips

_MAX_SIDE = 256  # pixels of the shorter side that LPIPS is computed at (Karras et al. 2020, appendix D)


class Loss(Protocol):
    """A differentiable distance between images."""

    @property
    def name(self) -> str: ...  # including the weights that it depends on, for metadata

    def features(
        self,
        images: Tensor,  # [N, C, H, W] in about [-1, 1]
    ) -> list[Tensor]: ...  # each [N, ...]

    def distance(
        self,
        a: list[Tensor],  # features of N images, or of one image
        b: list[Tensor],  # features of the targets
    ) -> Tensor: ...  # [N]


@dataclass(frozen=True, eq=False)
class LpipsLoss:
    """LPIPS with VGG16 (Zhang et al. 2018); images with a shorter side above 256 pixels are reduced to about that.

    Images with alpha are compared on white and on black, which together reveal both alpha and color.
    """

    lpips: Lpips

    @property
    def name(self) -> str:
        return f"lpips-{self.lpips.fingerprint}"

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:  # each [N, D]
        images = _fit_side(images, self.lpips.network.min_side, _MAX_SIDE)
        return [self.lpips.features(view) for view in _views(images)]

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([(x - y).square().sum(1) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True, eq=False)
class FeatureLoss:
    """Feature matching (Salimans et al. 2016, section 3.1): with the model's own discriminator, or another network.

    d = mean over levels of |D_l(x) - D_l(t)|^2 / |D_l(t)|^2
    """

    levels: Callable[[Tensor], list[Tensor]]  # features per level: [N, C, H, W] to [N, c, h, w] each
    name: str = "discriminator"

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:
        return self.levels(images)

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([_mean_square(x - y) / _mean_square(y).clamp_min(1e-8) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True, eq=False)
class CosineLoss:
    """1 - cosine of the vectors that a network assigns to images. Images with alpha are compared as by LPIPS."""

    name: str
    network: Callable[[Tensor], Tensor]  # [N, 3, H, W] to [N, D]
    unit: float = 1.0  # what counts as a distance of 1

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:  # each [N, D] of length 1
        return [F.normalize(self.network(view), dim=1) for view in _views(images)]

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([(x - y).square().sum(1) / (2 * self.unit) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True)
class PixelLoss:
    """Mean absolute difference of pixels and their gradients, at the full size and every halving down to 4 pixels."""

    name: str = "pixel"

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:  # for each size: pixels, horizontal gradients, vertical gradients
        features = []
        while True:
            features += [images, images.diff(dim=3), images.diff(dim=2)]
            if min(images.shape[2:]) < 8:
                return features
            images = F.avg_pool2d(images, 2)

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([(x - y).abs().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)], len(a) / 3)


def rgb_levels(
    levels: Callable[[Tensor], list[Tensor]],  # of RGB images
    min_side: int,
    max_side: int,
) -> Callable[[Tensor], list[Tensor]]:  # of images with any number of channels and of any size
    """Extract features of images as LPIPS does, whatever their channels and size."""

    def extract(images: Tensor) -> list[Tensor]:
        with full_precision():
            return [x for view in _views(_fit_side(images, min_side, max_side)) for x in levels(view)]

    return extract


def _views(images: Tensor) -> list[Tensor]:  # [N, C, H, W] -> [N, 3, H, W] each
    """The images in RGB; with alpha, on white and on black."""
    return [to_rgb(images)] if images.shape[1] != 4 else [to_rgb(images), to_rgb(images, background=0)]


def _fit_side(
    images: Tensor,  # [N, C, H, W]
    min_side: int,  # pixels
    max_side: int,
) -> Tensor:
    """Enlarge or average by a whole factor to bring the shorter side to at least min_side and about max_side."""
    side = min(images.shape[2:])
    if side < min_side:
        factor = -(-min_side // side)
        return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    factor, (height, width) = side // max_side, images.shape[2:]
    return F.adaptive_avg_pool2d(images, (height // factor, width // factor)) if factor > 1 else images


def _mean(
    parts: list[Tensor],  # each [N]
    count: float | None = None,  # divisor of the sum; None: the number of parts
) -> Tensor:  # [N]
    return sum(parts, parts[0].new_zeros(())) / (count or len(parts))


def _mean_square(
    x: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N]
    return x.square().mean((1, 2, 3))
