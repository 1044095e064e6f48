"""What a set holds, in words and on one sheet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .codec import from_array, to_array
from .dataset import Dataset
from .images import image_grid

_CELL = 128  # pixels of a sheet's cell, about
_CELLS = 80  # images on a sheet, at most


def summary(
    dataset: Dataset,
) -> dict[str, Any]:
    """Count, size, channels, classes with their counts, values per attribute, how it was made, content hash."""
    spec = dataset.spec
    return {
        "path": spec.path,
        "num": spec.num,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "classes": dataset.stored_counts,
        "attributes": {name: len(set(values)) for name, values in dataset.attributes.items()},
        "made": dataset.made,
        "content_hash": spec.content_hash,
    }


def contact_sheet(
    dataset: Dataset,
) -> Tensor:
    """Images taken evenly from the whole set, uint8 [C, H, W], small ones enlarged and large ones made smaller."""
    index = np.linspace(0, len(dataset) - 1, min(len(dataset), _CELLS)).round().astype(np.int64)
    images = dataset.images(index)
    longest = max(images.shape[2:])
    if longest > _CELL:
        images = torch.stack([_shrunk(i, _CELL / longest) for i in images])
    return image_grid(images, 10, pad=2, scale=max(1, _CELL // longest))


def sheet_path(
    dataset: Dataset,
) -> Path:
    """Beside the set; where that cannot be written, and for the packaged set, in the current folder."""
    path = Path(dataset.spec.path)
    folder = path.parent if path.exists() and os.access(path.parent, os.W_OK) else Path()
    return folder / f"{dataset.name}-contact.png"


def _shrunk(image: Tensor, factor: float) -> Tensor:  # uint8 [C, H, W]
    height, width = (max(1, round(side * factor)) for side in image.shape[1:])
    return torch.from_numpy(to_array(from_array(image.numpy()).resize((width, height), Image.Resampling.BOX)).copy())
