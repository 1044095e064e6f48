"""Reading of target images and masks, resized to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.codec import MAX_PIXELS, ImageError, decode, fit, to_array, to_channels
from ..data.dataset import DataSpec
from ..data.sources import Source
from ..errors import SganError
from ..files import suggest_path
from ..models.config import ImageConfig

_MAX_ASPECT_RATIO = 8  # relative to the model's; images with a larger one are rejected
_ROUNDING = 0.03  # deviation of the aspect ratios of an image and its mask, one of which was reduced


class Form(Protocol):
    """What images have to be like, such as a model's: the header of its snapshot."""

    @property
    def generator(self) -> ImageConfig: ...

    @property
    def data(self) -> DataSpec | None: ...  # the dataset that it was trained on


class TargetReader:
    """Reads images as in training: resized with the filter of the model's dataset."""

    def __init__(
        self,
        info: Form,  # of the model
        crop: str = "center",  # to the model's aspect ratio, see `codec.fit`
        pad: str = "black",
        *,
        size: tuple[int, int] | None = None,  # (height, width); None: the model's
        channels: int | None = None,  # None: the model's
        filter: str | None = None,  # of `codec.FILTERS`; None: as above
        enlarging: str | None = None,  # filter of images that are smaller; None: the same
    ):
        config, data = info.generator, info.data
        used = "lanczos" if data is None else "box" if data.filter == "box" else data.pack_filter or "lanczos"
        self.filter = filter or (used if used in ("box", "lanczos") else "lanczos")
        self.enlarging = enlarging or self.filter
        self.size, self.channels = size or (config.height, config.width), channels or config.channels
        self.crop, self.pad = crop, pad

    def read(
        self,
        paths: Sequence[str | Path],
    ) -> Tensor:  # [N, channels, height, width], -1 to 1 in steps of 1 / 127.5
        """Raises SganError if an image cannot be read, or its aspect ratio is very different from the model's."""
        return self.convert([read_image(path) for path in paths], paths)

    def convert(
        self,
        images: Sequence[Image.Image],
        names: Sequence[str | Path],  # for messages
    ) -> Tensor:  # as `read`
        return _to_float([self._fit(image, name) for image, name in zip(images, names, strict=True)])

    def read_source(
        self,
        source: Source,
        names: Sequence[str],  # of images in the source
    ) -> tuple[Tensor | None, dict[str, str]]:  # as `read`, None without any; name -> why it cannot be read
        """Read the images of a folder or zip that can be read."""
        images, problems = [], {}
        for name in names:
            try:
                images.append(self._fit(source.image(name, MAX_PIXELS), name))
            except (ImageError, SganError) as e:
                problems[name] = str(e)
        return _to_float(images) if images else None, problems

    def _fit(self, image: Image.Image, name: str | Path) -> np.ndarray:
        is_small = image.height < self.size[0] or image.width < self.size[1]
        filter = self.enlarging if is_small else self.filter
        return _fit(image, name, self.size, self.channels, self.crop, filter, self.pad)


def read_targets(
    paths: Sequence[str | Path],
    info: Form,  # of the model
    crop: str = "center",
    pad: str = "black",
) -> Tensor:  # [N, channels, height, width], -1 to 1 in steps of 1 / 127.5
    """Read image files, see `TargetReader.read`."""
    return TargetReader(info, crop, pad).read(paths)


def _to_float(images: list[np.ndarray]) -> Tensor:  # uint8 [C, H, W] each -> [N, C, H, W] in [-1, 1]
    return (torch.from_numpy(np.stack(images)).float() - 127.5) / 127.5


def read_mask(
    path: str | Path,
    info: Form,
    crop: str = "center",
) -> Tensor:  # [1, 1, height, width] of 0 and 1
    """Read a mask: white pixels count, padding does not. Raises SganError if it cannot be read or is entirely black."""
    config = info.generator
    pixels = _fit(read_image(path), path, (config.height, config.width), 1, crop, "box")
    mask = torch.from_numpy(pixels >= 128).float()[None]
    if not mask.any():
        raise SganError(f"The mask {path} is entirely black.", hint="Use white for the pixels that count or are given.")
    return mask


def check_mask_shape(
    path: str | Path,  # of the mask
    images: Sequence[Image.Image],  # that it is for
    names: Sequence[str | Path],  # for messages
    info: Form,
) -> None:
    """Raise SganError if a mask has neither the aspect ratio of an image, nor the size of the model."""
    width, height = read_image(path).size
    for image, name in zip(images, names, strict=True):
        ratio = (width * image.height) / (height * image.width)
        if abs(ratio - 1) > _ROUNDING and (height, width) != (info.generator.height, info.generator.width):
            raise SganError(
                f"The mask {path} is {height}x{width} (height x width), but {name} is {image.height}x{image.width}.",
                hint="Make the mask as large as the image.",
            )


def read_image(
    path: str | Path,
) -> Image.Image:
    """Decode a file. Raises SganError if it cannot be read."""
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError as e:
        raise SganError(f"{path} does not exist.", hint=suggest_path(Path(path))) from e
    except (OSError, ValueError) as e:
        raise SganError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}.") from e
    except ImageError as e:
        raise SganError(f"{path} cannot be read: {e}.") from e


def _fit(
    image: Image.Image,
    name: str | Path,  # for messages
    size: tuple[int, int],
    channels: int,
    crop: str,
    filter: str,
    pad: str = "black",
) -> np.ndarray:
    ratio = (image.width * size[0]) / (image.height * size[1])
    if max(ratio, 1 / ratio) > _MAX_ASPECT_RATIO:
        raise SganError(
            f"The aspect ratio of {name}, {image.height}x{image.width} (height x width), is too far from the model's, "
            f"{size[0]}x{size[1]}.",
            hint="Crop the image.",
        )
    return to_array(fit(to_channels(image, channels), size, crop, filter, pad))
