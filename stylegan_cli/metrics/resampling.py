"""Translation and rotation of images by resampling, and the masks of the pixels that do not depend on what lies outside
(Karras et al. 2021, "Alias-Free Generative Adversarial Networks", appendix E.2 and E.3).

Translations are in pixels, to the right and down; angles in radians, counter-clockwise. Masks hold 0 and 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import grid_sample

_LOBES = 3  # of the Lanczos window, on each side
_UP = 4  # a rotation samples an image that is enlarged by this factor
_TAPS = 4 * _LOBES  # of a rotation's filter for each pixel: those of its two windows
_REACH = 64  # pixels from the center to the edge of the periodic grid that a rotation's filter is computed on


def shift(
    images: Tensor,  # [N, C, H, W]
    pixels: Tensor,  # [N, 2] int64, x before y
) -> tuple[Tensor, Tensor]:  # [N, C, H, W], mask [N, 1, H, W]
    """Translate each image by whole pixels; zeros enter."""
    mask = images.new_ones(len(images), 1, *images.shape[2:])
    for dim, steps in ((3, pixels[:, 0]), (2, pixels[:, 1])):
        images, mask = _shift_axis(images, steps, dim), _shift_axis(mask, steps, dim)
    return images, mask


def _shift_axis(
    x: Tensor,  # [N, C, H, W]
    steps: Tensor,  # [N] int64
    dim: int,  # 2 or 3
) -> Tensor:  # [N, C, H, W]
    size = x.shape[dim]
    source = torch.arange(size, device=x.device) - steps[:, None]
    shape = (len(x), 1, size, 1) if dim == 2 else (len(x), 1, 1, size)
    inside = ((source >= 0) & (source < size)).view(shape)
    return x.gather(dim, source.clamp(0, size - 1).view(shape).expand_as(x)) * inside


def shift_by_fraction(
    images: Tensor,  # [N, C, H, W]
    pixels: Tensor,  # [N, 2] float64, x before y
) -> tuple[Tensor, Tensor]:  # [N, C, H, W], mask [N, 1, H, W]
    """Translate each image with a Lanczos filter of three lobes; zeros enter."""
    mask = images.new_ones(len(images), 1, *images.shape[2:])
    for dim, distance in ((3, pixels[:, 0]), (2, pixels[:, 1])):
        whole = distance.floor()
        offsets = torch.arange(1 - _LOBES, _LOBES + 1, device=pixels.device)
        taps = _lanczos(offsets - (distance - whole)[:, None])
        taps = (taps / taps.sum(1, keepdim=True)).to(images)
        steps = whole.long().to(images.device)
        moved = torch.zeros_like(images)
        for k, tap in enumerate(taps.t(), 1 - _LOBES):
            moved += _shift_axis(images, steps + k, dim) * tap[:, None, None, None]
        images = moved
        mask = torch.minimum(_shift_axis(mask, steps + 1 - _LOBES, dim), _shift_axis(mask, steps + _LOBES, dim))
    return images, mask


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * _window(x)


def _window(x: Tensor) -> Tensor:
    return torch.sinc(x / _LOBES) * (x.abs() < _LOBES)


def rotate(
    images: Tensor,  # [N, C, H, W]
    angles: Tensor,  # [N] float64
) -> tuple[Tensor, Tensor]:  # [N, C, H, W], mask [N, 1, H, W]
    """R_a: rotate each image around its center. It is enlarged by a filter that keeps the frequencies that the image
    can have both before and after the rotation, and sampled bilinearly."""
    rotated, masks = zip(*(_rotate(image, angle) for image, angle in zip(images, angles, strict=True)))
    return torch.stack(rotated), torch.stack(masks)


def _rotate(
    image: Tensor,  # [C, H, W]
    angle: Tensor,  # []
) -> tuple[Tensor, Tensor]:  # [C, H, W], mask [1, H, W]
    height, width = image.shape[1:]
    kernel = F.pad(rotation_filter(angle, _UP).to(image) * _UP**2, (0, 1, 0, 1))
    # Polyphase: pixel (i, j) of every block of _UP x _UP pixels has its own filter.
    phases = kernel.reshape(_TAPS, _UP, _TAPS, _UP).permute(1, 3, 0, 2).reshape(_UP**2, 1, _TAPS, _TAPS)
    large = F.pixel_shuffle(F.conv2d(image[:, None], phases.flip(2, 3), padding=_TAPS - 1), _UP)
    center = _UP * _TAPS // 2 - 1  # of the filter: pixel i of the image lies at _UP i + center

    y, x = (torch.arange(size, device=angle.device, dtype=angle.dtype) - (size - 1) / 2 for size in (height, width))
    cos, sin = angle.cos(), angle.sin()
    source = torch.stack([cos * x - sin * y[:, None], sin * x + cos * y[:, None]], 2)  # [H, W, 2] around the center
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=angle.device, dtype=angle.dtype)
    source = _UP * (source + middle) + center  # in pixels of the enlarged image
    size = torch.tensor([width, height], device=angle.device, dtype=angle.dtype)
    nearest = source.round()
    inside = (nearest >= 2 * center - 1) & (nearest < _UP * size - 3)  # where the whole filter is inside
    grid = (2 * source + 1) / (_UP * (size + _TAPS - 1)) - 1
    rotated = grid_sample(large.transpose(0, 1), grid[None].to(image))[0]
    return rotated, inside.all(2)[None].to(image)


def limit_to_rotation(
    images: Tensor,  # [N, C, H, W], generated with an input that is rotated
    angles: Tensor,  # [N] float64, of that rotation
) -> tuple[Tensor, Tensor]:  # [N, C, H, W], mask [N, 1, H, W]
    """R*_a: remove what `rotate` removes from the unrotated image: frequencies that it could not have."""
    kernels = torch.stack([rotation_filter(-angle, 1) for angle in angles]).to(images)[:, None]
    reach = kernels.shape[-1] // 2
    filtered = F.conv2d(images.transpose(0, 1), kernels, padding=reach, groups=len(images)).transpose(0, 1)
    mask = torch.zeros_like(images[:, :1])
    mask[:, :, reach:-reach, reach:-reach] = 1
    return filtered, mask


def rotation_filter(
    angle: Tensor,  # [] float64
    up: int,  # samples per pixel
) -> Tensor:  # [12 up - 1, 12 up - 1] float64, symmetric around the center
    """The low-pass filter of the frequencies that pixels can have on both of two grids, of which one is rotated: the
    convolution of both grids' sinc filters, times that of both windows (appendix E.3)."""
    reach = _REACH * up - 1
    steps = torch.arange(-reach, reach + 1, device=angle.device, dtype=angle.dtype) / up
    x, y = steps, steps[:, None]
    cos, sin = angle.cos(), angle.sin()
    u, v = cos * x + sin * y, cos * y - sin * x
    band = _convolve(torch.sinc(x) * torch.sinc(y), torch.sinc(u) * torch.sinc(v))
    window = _convolve(_window(x) * _window(y), _window(u) * _window(v))
    first = reach + 1 - _TAPS * up // 2
    kernel = (band * window)[first : first + _TAPS * up - 1, first : first + _TAPS * up - 1]
    phases = F.pad(kernel, (0, 1, 0, 1)).reshape(_TAPS, up, _TAPS, up)
    phases = phases / (up**2 * phases.sum((0, 2), keepdim=True))  # each has a sum of 1 after upsampling
    return phases.reshape(_TAPS * up, _TAPS * up)[:-1, :-1]


def _convolve(
    a: Tensor,  # [n, n], n odd, with the origin at its center
    b: Tensor,  # [n, n]
) -> Tensor:  # [n, n]
    """Periodic convolution."""
    n = len(a)
    product = torch.fft.irfft2(torch.fft.rfft2(a) * torch.fft.rfft2(b), (n, n))
    return product.roll((n // 2 + 1, n // 2 + 1), (0, 1))
