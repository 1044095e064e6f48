"""Reading of target images and masks, resized to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.codec import ImageError, decode, fit, to_array, to_channels
from ..errors import SganError
from ..files import suggest_path
from ..snapshot import SnapshotInfo

_MAX_ASPECT_RATIO = 8  # relative to the model's; images with a larger one are rejected


def read_targets(
    paths: Sequence[str | Path],
    info: SnapshotInfo,  # of the model
    crop: str = "center",  # to the model's aspect ratio, see `codec.fit`
    pad: str = "black",
) -> Tensor:  # [N, channels, height, width], -1 to 1 in steps of 1 / 127.5
    """Read images as in training: resized with the filter of the model's dataset.

    Raises SganError if an image cannot be read, or its aspect ratio is very different from the model's.
    """
    config, data = info.generator, info.data
    filter = "lanczos" if data is None else "box" if data.filter == "box" else data.pack_filter or "lanczos"
    filter = filter if filter in ("box", "lanczos") else "lanczos"
    images = [_read(path, (config.height, config.width), config.channels, crop, filter, pad) for path in paths]
    return (torch.from_numpy(np.stack(images)).float() - 127.5) / 127.5


def read_mask(
    path: str | Path,
    info: SnapshotInfo,
    crop: str = "center",
) -> Tensor:  # [1, 1, height, width] of 0 and 1
    """Read a mask: white pixels count, padding does not. Raises SganError if it cannot be read or is entirely black."""
    config = info.generator
    pixels = _read(path, (config.height, config.width), 1, crop, "box")
    mask = torch.from_numpy(pixels >= 128).float()[None]
    if not mask.any():
        raise SganError(f"The mask {path} is entirely black.", hint="Use white for the pixels that count.")
    return mask


def _read(
    path: str | Path, size: tuple[int, int], channels: int, crop: str, filter: str, pad: str = "black"
) -> np.ndarray:
    try:
        image = decode(Path(path).read_bytes())
    except FileNotFoundError as e:
        raise SganError(f"{path} does not exist.", hint=suggest_path(Path(path))) from e
    except (OSError, ValueError) as e:
        raise SganError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}.") from e
    except ImageError as e:
        raise SganError(f"{path} cannot be read: {e}.") from e
    ratio = (image.width * size[0]) / (image.height * size[1])
    if max(ratio, 1 / ratio) > _MAX_ASPECT_RATIO:
        raise SganError(
            f"The aspect ratio of {path}, {image.height}x{image.width} (height x width), is too far from the model's, "
            f"{size[0]}x{size[1]}.",
            hint="Crop the image.",
        )
    return to_array(fit(to_channels(image, channels), size, crop, filter, pad))
