"""Summary and contact sheet of a dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import plural, printable
from .checks import OPAQUE
from .codec import from_array, to_array
from .dataset import Dataset
from .images import image_grid
from .listing import first_three, with_reasons

_CELL = 128  # approximate size of a sheet's cells in pixels
_CELLS = 80  # maximum number of images on a sheet


def summary(
    dataset: Dataset,
) -> dict[str, Any]:
    """Return count, size, channels, labels, values per attribute, provenance, content hash and files not taken."""
    spec, stored = dataset.spec, dataset.stored
    return {
        "path": spec.path,
        "num": spec.num,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "classes": dataset.stored_counts,
        "label_numbers": list(stored.names) if stored and stored.are_vectors else [],
        "label_problem": dataset.label_problem,
        "attributes": {name: len(set(values)) for name, values in dataset.attributes.items()},
        "made": dataset.provenance,
        "content_hash": spec.content_hash,
        "ignored": {printable(name): reason for name, reason in dataset.ignored.items()},
        "note": OPAQUE if _is_opaque(dataset) else None,
    }


def notes(
    dataset: Dataset,
) -> list[str]:
    """Return sentences about files that are not taken and about alpha that is not needed."""
    others = with_reasons(dataset.ignored)
    path, opaque = dataset.spec.path, [OPAQUE] if _is_opaque(dataset) else []
    return [*([f"Skipped {plural(len(others), 'file')} of {path}: {first_three(others)}."] if others else []), *opaque]


def contact_sheet(
    dataset: Dataset,
) -> Tensor:
    """Render evenly spaced images of the dataset, enlarged or reduced to about one size: uint8 [C, H, W]."""
    images = _some_images(dataset)
    longest = max(images.shape[2:])
    if longest > _CELL:
        images = torch.stack([_reduce(i, _CELL / longest) for i in images])
    return image_grid(images, 10, pad=2, scale=max(1, _CELL // longest))


def _some_images(dataset: Dataset) -> Tensor:  # uint8 [N, C, H, W]
    index = np.linspace(0, len(dataset) - 1, min(len(dataset), _CELLS)).round().astype(np.int64)
    return dataset.images(index)


def _is_opaque(dataset: Dataset) -> bool:
    """Whether there is an alpha channel that makes nothing transparent, in the images that the sheet shows."""
    return dataset.spec.channels == 4 and bool((_some_images(dataset)[:, 3] == 255).all())


def sheet_path(
    dataset: Dataset,
) -> Path:
    """Path of the contact sheet: beside the dataset, or in the current folder if that is read-only or bundled."""
    path = Path(dataset.spec.path)
    folder = path.parent if path.exists() and os.access(path.parent, os.W_OK) else Path()
    return folder / f"{dataset.name}-contact.png"


def _reduce(image: Tensor, factor: float) -> Tensor:  # uint8 [C, H, W]
    height, width = (max(1, round(side * factor)) for side in image.shape[1:])
    return torch.from_numpy(to_array(from_array(image.numpy()).resize((width, height), Image.Resampling.BOX)).copy())
