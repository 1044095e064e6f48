"""How far an image is from another: three distances that can be descended.

Each gives features of images, computed once for a target, and a distance between two sets of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ..data.images import to_rgb
from .lpips import Lpips

_LARGEST = 256  # pixels of the shorter side that LPIPS looks at (Karras et al. 2020, appendix D)


class Loss(Protocol):
    """A distance between images, differentiable."""

    @property
    def name(self) -> str: ...  # with what it depends on, for the record

    def features(
        self,
        images: Tensor,  # [N, C, H, W] in about [-1, 1]
    ) -> list[Tensor]: ...  # each [N, ...]

    def distance(
        self,
        a: list[Tensor],  # features of N images, or of one
        b: list[Tensor],  # features of the targets
    ) -> Tensor: ...  # [N]


@dataclass(frozen=True, eq=False)
class LpipsLoss:
    """LPIPS over VGG16 (Zhang et al. 2018), of images of more than 256 pixels reduced to about that.

    Images with alpha are compared twice, on white and on black: together the two say what is where and what is seen.
    """

    lpips: Lpips

    @property
    def name(self) -> str:
        return f"lpips-{self.lpips.fingerprint}"

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:  # each [N, D]
        images = _between(images, self.lpips.network.smallest, _LARGEST)
        views = [images] if images.shape[1] != 4 else [to_rgb(images), to_rgb(images, background=0)]
        return [self.lpips.features(to_rgb(view)) for view in views]

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([(x - y).square().sum(1) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True, eq=False)
class DiscriminatorLoss:
    """Feature matching on the model's own discriminator (Salimans et al. 2016, section 3.1).

    d = mean over levels of |D_l(x) - D_l(t)|^2 / |D_l(t)|^2
    """

    levels: Callable[[Tensor], list[Tensor]]  # features of a discriminator: [N, C, H, W] to each [N, c, h, w]

    @property
    def name(self) -> str:
        return "discriminator"

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
        return _mean([_power(x - y) / _power(y).clamp_min(1e-8) for x, y in zip(a, b, strict=True)])


@dataclass(frozen=True)
class PixelLoss:
    """Mean absolute difference of pixels and of their gradients, at every halving of the size down to 4 pixels."""

    name: str = "pixel"

    def features(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> list[Tensor]:  # per size: pixels, horizontal and vertical gradients
        found = []
        while True:
            found += [images, images.diff(dim=3), images.diff(dim=2)]
            if min(images.shape[2:]) < 8:
                return found
            images = F.avg_pool2d(images, 2)

    def distance(
        self,
        a: list[Tensor],
        b: list[Tensor],
    ) -> Tensor:  # [N]
        return _mean([(x - y).abs().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)], len(a) / 3)


def _between(
    images: Tensor,  # [N, C, H, W]
    smallest: int,  # pixels
    largest: int,
) -> Tensor:
    """Enlarged by whole pixels or averaged until the shorter side lies between the two, as well as halving allows."""
    side = min(images.shape[2:])
    if side < smallest:
        times = -(-smallest // side)
        return images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    part, (height, width) = side // largest, images.shape[2:]
    return F.adaptive_avg_pool2d(images, (height // part, width // part)) if part > 1 else images


def _mean(
    parts: list[Tensor],  # each [N]
    count: float | None = None,  # how many they count as
) -> Tensor:  # [N]
    return sum(parts, parts[0].new_zeros(())) / (count or len(parts))


def _power(
    x: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N]
    return x.square().mean((1, 2, 3))
