"""Images to project: read, fitted to the model's size and channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.codec import ImageError, decode, fit, to_array, to_channels
from ..errors import SganError
from ..snapshot import SnapshotInfo

_MOST_CUT = 8  # an image whose shape is so many times longer than the model's is no image of its kind


def read_targets(
    paths: Sequence[str | Path],
    info: SnapshotInfo,  # of the model
    crop: str = "center",  # 'center' cuts the largest centered part of the model's shape, 'none' stretches
) -> Tensor:  # [N, channels, height, width], -1 to 1 in steps of 1 / 127.5
    """The images as the model would have seen them in training: resized with the filter of its data.

    Raises SganError naming the first that cannot be read, or is far from the model's shape.
    """
    config, data = info.generator, info.data
    filter = "lanczos" if data is None else "box" if data.filter == "box" else data.pack_filter or "lanczos"
    filter = filter if filter in ("box", "lanczos") else "lanczos"
    images = [_read(path, (config.height, config.width), config.channels, crop, filter) for path in paths]
    return (torch.from_numpy(np.stack(images)).float() - 127.5) / 127.5


def read_mask(
    path: str | Path,
    info: SnapshotInfo,
    crop: str = "center",
) -> Tensor:  # [1, 1, height, width] of 0 and 1
    """White counts, black does not. Raises SganError if it cannot be read or nothing counts."""
    config = info.generator
    pixels = _read(path, (config.height, config.width), 1, crop, "box")
    mask = torch.from_numpy(pixels >= 128).float()[None]
    if not mask.any():
        raise SganError(f"The mask {path} is black to_all_layers: no pixel would count.", hint="White is what counts.")
    return mask


def _read(path: str | Path, size: tuple[int, int], channels: int, crop: str, filter: str) -> np.ndarray:
    try:
        image = decode(Path(path).read_bytes())
    except FileNotFoundError as e:
        raise SganError(f"There is no file {path}.") from e
    except (OSError, ValueError) as e:
        raise SganError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}.") from e
    except ImageError as e:
        raise SganError(f"{path} cannot be read: {e}.") from e
    longer = (image.width * size[0]) / (image.height * size[1])
    if max(longer, 1 / longer) > _MOST_CUT:
        told = f"{path} has {image.width} x {image.height} pixels, far from the model's {size[1]} x {size[0]}"
        raise SganError(f"{told}: nearly all of it would be cut off.", hint="Cut out the part that is meant.")
    return to_array(fit(to_channels(image, channels), size, crop, filter))
