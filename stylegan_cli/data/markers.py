"""Points marked on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from .codec import from_array, to_channels

_MIN_SIDE = 256  # images with a smaller side are enlarged
_HANDLE, _TARGET, _EDGE = (230, 50, 50), (50, 110, 230), (255, 255, 255)

Points = Sequence[tuple[float, float]]


def mark_points(
    image: Tensor,  # uint8 [C, h, w]
    handles: Points,  # x, y in pixels; (0, 0) is the upper left corner
    targets: Points,
) -> Tensor:  # uint8 [3, H, W]
    """Mark handle points in red, targets in blue, and a line from each handle to its target. Small images are enlarged
    without interpolation."""
    height, width = image.shape[1:]
    scale = max(1, -(-_MIN_SIDE // min(height, width)))
    canvas = to_channels(from_array(image.cpu().numpy()), 3)
    canvas = canvas.resize((width * scale, height * scale), 0)
    pen, size = ImageDraw.Draw(canvas), max(canvas.size) / 64

    def dot(x: float, y: float, color: tuple[int, int, int], radius: float) -> None:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), color, _EDGE, max(1, round(radius / 4)))

    for (x, y), (to_x, to_y) in zip(handles, targets, strict=True):
        ends = [(x * scale, y * scale), (to_x * scale, to_y * scale)]
        pen.line(ends, _EDGE, max(1, round(size / 3)))
        dot(*ends[1], _TARGET, size * 0.8)
        dot(*ends[0], _HANDLE, size)
    return torch.from_numpy(np.asarray(canvas).transpose(2, 0, 1).copy())
