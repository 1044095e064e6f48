"""Where the image lies in its frame, for generators whose input can be translated and rotated (Karras et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..models.generator import Generator


def view_transform(
    translate: tuple[float, float] | None,  # right and down, in image widths and heights
    rotate: float | None,  # counterclockwise, in degrees
    sides: tuple[float, float] = (1, 1),  # width and height of the image, in any unit
) -> Tensor:  # [3, 3] float64, for `Generator.synthesis`
    """The input transform that rotates the image about its center, then translates it: the inverse of that motion."""
    (x, y), angle = translate or (0.0, 0.0), math.radians(rotate or 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    width, height = sides
    motion = torch.tensor([[cos, sin, x * width], [-sin, cos, y * height], [0, 0, 1]], dtype=torch.float64)
    inverse = torch.linalg.inv(motion)
    inverse[:2, 2] /= torch.tensor(sides, dtype=torch.float64)
    return inverse


def view_path(
    translate: tuple[float, float] | None,  # see `view_transform`; all of it at the end of the path
    rotate: float | None,
    duration: float,  # time of the last frame, or of the first frame's return
    loop: bool,
    sides: tuple[float, float] = (1, 1),
) -> Callable[[Tensor], Tensor]:  # times [M] float64 -> [M, 3, 3]
    """A steady motion. In a loop the image moves there and back; whole turns just go on."""
    turns = loop and (rotate or 0) % 360 == 0

    def path(times: Tensor) -> Tensor:
        transforms = []
        for time in times.tolist():
            steady = time / duration if duration else 0.0
            swing = (1 - math.cos(2 * math.pi * steady)) / 2 if loop else steady
            moved = translate and (translate[0] * swing, translate[1] * swing)
            transforms.append(view_transform(moved, (rotate or 0.0) * (steady if turns else swing), sides))
        return torch.stack(transforms)

    return path


def input_indices(
    G: Generator,
) -> list[int]:
    """The w indices of latents that only move the image."""
    return [row.w_index for row in G.layers if row.kind == "input"]


def style_indices_without_input(
    G: Generator,
) -> list[int]:
    """All other w indices."""
    moving = set(input_indices(G))
    return [i for i in range(G.num_ws) if i not in moving]
