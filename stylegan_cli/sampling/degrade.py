"""What an encoder sees of an image, by task: the image itself, a damaged form of it, or another image that belongs to
it, which it learns to translate.

Every random number is a function of (seed, purpose, index of the image), see `counter`.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..config import check_choice
from ..data.codec import from_array, to_array
from ..data.images import to_rgb, to_uint8
from ..errors import MisuseError, SganError
from . import counter
from .regions import UNKNOWN_LEVEL, class_levels, holes, revealed

_REFERENCE = 512  # pixels of the shorter side for which blur is given
_TAPS = 41  # of the widest blur
_GRAY = (0.299, 0.587, 0.114)  # luma of RGB (ITU-R BT.601)


@dataclass(frozen=True)
class Task:
    """What the encoder sees: the image itself, unless a task says otherwise."""

    name: ClassVar[str]
    needs_source: ClassVar[bool] = False  # whether it is another image, whose channels follow those of the image
    fidelity: ClassVar[float] = 1.0  # weight of the image itself in the loss: less if its colors cannot be known
    gives_pixels: ClassVar[bool] = False  # whether the inputs are an image with a hole, and a channel that says where

    def check(
        self,
        size: tuple[int, int],  # (H, W) of an image
    ) -> None:
        """Raise MisuseError if the options do not fit the size."""

    def inputs(
        self,
        channels: int,  # of an image
    ) -> int:
        """The number of channels that the encoder sees."""
        return channels

    def __call__(
        self,
        images: Tensor,  # [N, C, H, W] in [-1, 1]
        seed: int,
        index: Tensor,  # [N] int64, of the images
    ) -> Tensor:  # [N, inputs, H, W]
        return images

    def shown(
        self,
        inputs: Tensor,  # [N, inputs, H, W]
    ) -> Tensor:  # [N, 1, 3 or 4, H, W]
        """The inputs as images."""
        return inputs

    def completed(
        self,
        results: Tensor,  # [N, C, H, W]
        inputs: Tensor,  # [N, inputs, H, W]
    ) -> Tensor:  # [N, C, H, W]
        """The results with what is given exactly."""
        return results

    def judged(
        self,
        images: Tensor,  # [N, C, H, W]
    ) -> Tensor | None:  # [N, ...]
        """What of a result has to be as in the image, besides the image itself."""
        return None


@dataclass(frozen=True)
class Invert(Task):
    """The image itself."""

    name: ClassVar[str] = "invert"


@dataclass(frozen=True)
class SuperResolution(Task):
    """The image reduced by an area average, and enlarged again with a bicubic filter."""

    name: ClassVar[str] = "superres"
    factor: int = 4

    def check(self, size: tuple[int, int]) -> None:
        height, width = size
        factors = [k for k in range(2, min(size) // 2 + 1) if height % k == 0 and width % k == 0]
        if self.factor not in factors:
            raise MisuseError(
                f"Images of {height}x{width} (height x width) cannot be reduced by the factor {self.factor}.",
                hint=f"Use --factor {', '.join(map(str, factors))}.",
            )

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        return enlarge(reduce(images, self.factor), images.shape[2:])

    def judged(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(visible(images), self.factor)


@dataclass(frozen=True)
class Inpaint(Task):
    """The image with a gray hole, and a channel that is 1 where pixels are given and -1 in the hole.

    The hole is one of: a rectangle, strokes, or everything but one half.
    """

    name: ClassVar[str] = "inpaint"
    gives_pixels: ClassVar[bool] = True

    def inputs(self, channels: int) -> int:
        return channels + 1

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        return with_hole(images, holes(images.shape[2:], seed, index))

    def shown(self, inputs: Tensor) -> Tensor:
        return inputs[:, :-1]

    def completed(self, results: Tensor, inputs: Tensor) -> Tensor:
        return torch.where(inputs[:, -1:] > 0, inputs[:, :-1], results)


@dataclass(frozen=True)
class Sketch(Task):
    """The outlines of the image: the local contrast of its luma, dark on white."""

    name: ClassVar[str] = "sketch"
    fidelity: ClassVar[float] = 0.1

    def inputs(self, channels: int) -> int:
        return 1

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        return self.judged(images)

    def judged(self, images: Tensor) -> Tensor:
        return sketch(images)


@dataclass(frozen=True)
class Restore(Task):
    """The image blurred, reduced, with noise and JPEG artifacts, and enlarged again: the ranges of GPEN (Yang et al.
    2021, section 4.1, and the published code), for images of 512 pixels."""

    name: ClassVar[str] = "restore"
    sigma: tuple[float, float] = (0.1, 10.0)  # standard deviation of the blur, in pixels of an image of 512
    reduction: tuple[float, float] = (0.8, 8.0)
    noise: tuple[float, float] = (0.0, 20.0)  # standard deviation, of 255
    quality: tuple[int, int] = (60, 100)  # of JPEG
    gray: float = 0.2  # fraction of images without color

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        u = dict(zip(_RESTORE, counter.uniform(seed, "restore", index, (len(_RESTORE),)).unbind(1), strict=True))
        small = min(height, width) / _REFERENCE
        sigma = _between(u["sigma"], *self.sigma) * small
        other = torch.where(u["anisotropic"] < 0.5, _between(u["other"], *self.sigma) * small, sigma)
        radius = math.ceil(3 * self.sigma[1] * small)  # of the widest blur, so that no image depends on the others
        x = blur(visible(images), sigma, other, u["angle"] * math.pi, radius)
        grain = counter.normal(seed, "restore.noise", index, (channels, height, width))
        grain[:, 3:] = 0  # as JPEG, noise is that of colors
        factor = _between(u["reduction"], *self.reduction).tolist()
        level = (_between(u["noise"], *self.noise) / 127.5).tolist()
        quality = _between(u["quality"], *self.quality).tolist()
        rows = []
        for i in range(n):
            size = [max(round(side / max(factor[i], 1)), 4) for side in (height, width)]
            y = F.interpolate(x[i : i + 1], size, mode="bilinear", antialias=True, align_corners=False)
            y = (_colored(y) + level[i] * grain[i : i + 1, :, : size[0], : size[1]]).clamp(-1, 1)
            rows.append(enlarge(jpeg(y, round(quality[i])), (height, width)))
        x = torch.cat(rows)
        return torch.where((u["gray"] < self.gray)[:, None, None, None], without_color(x), x)


@dataclass(frozen=True)
class Pairs(Task):
    """Another image."""

    name: ClassVar[str] = "pairs"
    needs_source: ClassVar[bool] = True
    channels: int = 3  # of the other image

    def __post_init__(self) -> None:
        check_choice("The number of channels", self.channels, (1, 3, 4))

    def inputs(self, channels: int) -> int:
        return self.channels

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        return images[:, -self.channels :]


@dataclass(frozen=True)
class Mask(Task):
    """A map of classes, with a channel for each class: 1 in its pixels, else -1; all 0 where the class is unknown. Next
    to the image, it is the index of the class as a level of 0 to 255; 255 is unknown.

    Of a sparse map the encoder sees a few points of each class, or strokes, or sometimes all."""

    name: ClassVar[str] = "mask"
    needs_source: ClassVar[bool] = True
    fidelity: ClassVar[float] = 0.1
    classes: tuple[str, ...] = ()  # their colors, #rrggbb, sorted
    sparse: bool = False

    def __post_init__(self) -> None:
        colors = [x for x in self.classes if isinstance(x, str) and re.fullmatch("#[0-9a-f]{6}", x)]
        if tuple(sorted(set(colors))) != self.classes:
            raise SganError(f"The classes must be sorted colors such as #ff8000, not {self.classes!r}.")

    def inputs(self, channels: int) -> int:
        return len(self.classes)

    def __call__(self, images: Tensor, seed: int, index: Tensor) -> Tensor:
        maps = class_levels(images)
        if self.sparse:
            maps = torch.where(revealed(maps, len(self.classes), seed, index), maps, UNKNOWN_LEVEL)
        return self.channels_of(maps)

    def channels_of(
        self,
        maps: Tensor,  # [N, H, W] int64
    ) -> Tensor:  # [N, inputs, H, W]
        k = torch.arange(len(self.classes), device=maps.device)[:, None, None]
        return ((maps[:, None] == k).float() * 2 - 1) * (maps != UNKNOWN_LEVEL)[:, None]

    def judged(self, images: Tensor) -> Tensor:
        return sketch(images)

    def shown(self, inputs: Tensor) -> Tensor:
        colors = torch.tensor([list(bytes.fromhex(color[1:])) for color in self.classes], device=inputs.device)
        shown = colors[inputs.argmax(1)].permute(0, 3, 1, 2) / 127.5 - 1
        return shown * (inputs != 0).any(1, keepdim=True)


_RESTORE = ("sigma", "other", "anisotropic", "angle", "reduction", "noise", "quality", "gray")
_ALL = (Invert, SuperResolution, Inpaint, Sketch, Restore, Mask, Pairs)
TASKS: dict[str, type[Task]] = {task.name: task for task in _ALL}


def make_task(
    name: str,  # of TASKS
    options: dict[str, Any],  # its fields that are not as by default
) -> Task:
    """Make a task from saved settings. Raises MisuseError if the name or an option is unknown."""
    if name not in TASKS:
        raise MisuseError(f"There is no task {name!r}.", hint=f"Choose from {', '.join(TASKS)}.")
    known = {field.name for field in dataclasses.fields(TASKS[name])}
    if unknown := sorted(options.keys() - known):
        raise MisuseError(f"The task {name} has no option {unknown[0]!r}.")
    try:
        return TASKS[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    except TypeError as e:
        raise SganError(f"The options of the task {name} are not valid ({e}).") from e


def reduce(
    images: Tensor,  # [N, C, H, W]
    factor: int,
) -> Tensor:  # [N, C, H / factor, W / factor]
    """Average blocks of factor x factor pixels. As in `data.codec.fit`, colors are weighted by alpha, so that those of
    transparent pixels do not bleed in."""
    return _colored(F.avg_pool2d(visible(images), factor))


def enlarge(
    images: Tensor,  # [N, C, h, w]
    size: Any,  # (H, W)
) -> Tensor:  # [N, C, H, W]
    enlarged = F.interpolate(visible(images), tuple(size), mode="bicubic", align_corners=False)
    return _colored(enlarged.clamp(-1, 1))


def visible(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H, W]
    """Colors on black: weighted by alpha. The same without alpha."""
    if images.shape[1] < 4:
        return images
    return torch.cat([(images[:, :3] + 1) * _opacity(images) - 1, images[:, 3:]], 1)


def _colored(images: Tensor) -> Tensor:
    """The inverse of `visible`, where anything is visible."""
    if images.shape[1] < 4:
        return images
    colors = (images[:, :3] + 1) / _opacity(images).clamp_min(1 / 255) - 1
    return torch.cat([colors.clamp(-1, 1), images[:, 3:]], 1)


def _opacity(images: Tensor) -> Tensor:  # [N, 4, H, W] -> [N, 1, H, W] of 0 to 1
    return ((images[:, 3:] + 1) / 2).clamp(0, 1)


def with_hole(
    images: Tensor,  # [N, C, H, W]
    given: Tensor,  # [N, 1, H, W]: 1 for given pixels, 0 in the hole
) -> Tensor:  # [N, C + 1, H, W]
    return torch.cat([images * given, given.expand(len(images), -1, -1, -1) * 2 - 1], 1)


def sketch(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, 1, H, W]
    """Outlines: the gradient of the luma by Scharr's filter, dark on white."""
    luma = F.pad(_luma(to_rgb(images)), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[3.0, 0, -3], [10, 0, -10], [3, 0, -3]], device=images.device) / 16
    gradient = F.conv2d(luma, torch.stack([kernel, kernel.t()])[:, None])
    return (1 - 2 * torch.linalg.vector_norm(gradient, dim=1, keepdim=True)).clamp_min(-1)


def without_color(
    images: Tensor,  # [N, C, H, W]
) -> Tensor:  # [N, C, H, W]
    return torch.cat([_luma(images).expand(-1, 3, -1, -1), images[:, 3:]], 1) if images.shape[1] >= 3 else images


def blur(
    images: Tensor,  # [N, C, H, W]
    sigma: Tensor,  # [N] in pixels, along the first axis
    other: Tensor,  # [N] along the second axis
    angle: Tensor,  # [N] of the first axis, in radians
    radius: int,  # of the filter in pixels, at most 20 and less than a side
) -> Tensor:  # [N, C, H, W]
    """Blur each image with its own Gaussian."""
    n, channels, height, width = images.shape
    radius = min(max(radius, 1), _TAPS // 2, min(height, width) - 1)
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = (x * cos + y * sin) / sigma[:, None, None], (y * cos - x * sin) / other[:, None, None]
    kernel = (-(along.square() + across.square()) / 2).exp()
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    padded = F.pad(images, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    return F.conv2d(padded, kernel.repeat_interleave(channels, 0)[:, None], groups=n * channels).reshape(images.shape)


def jpeg(
    images: Tensor,  # [N, C, H, W] in [-1, 1]
    quality: int,
) -> Tensor:  # [N, C, H, W]
    """Compress and decompress. Alpha is kept as it is."""
    results = []
    for pixels in to_uint8(images).cpu():
        content = io.BytesIO()
        from_array(pixels[:3].numpy()).save(content, "JPEG", quality=quality)
        with Image.open(content) as image:
            results.append(torch.cat([torch.tensor(to_array(image)), pixels[3:]]))
    return torch.stack(results).to(images.device).float() / 127.5 - 1


def _luma(images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, 1, H, W]
    if images.shape[1] < 3:
        return images[:, :1]
    weights = torch.tensor(_GRAY, device=images.device, dtype=images.dtype)
    return (images[:, :3] * weights[:, None, None]).sum(1, keepdim=True)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u
