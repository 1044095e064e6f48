"""Rotation and translation as variables of a projection, in generators whose latents move the image
(Karras et al. 2021, appendix F.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.generator import Generator
from ..sampling.view import input_indices, style_indices_without_input

_SCALE = 0.1  # of one unit of a variable, in the numbers that the input takes: image widths, and about 6 degrees


class View:
    """A motion of the images, made of the shortest change of the input's latents that causes it. The result is plain
    latents, which any program that reads them moves in the same way."""

    def __init__(
        self,
        G: Generator,
        count: int,  # of images
        start: Tensor | None = None,  # [N or 1, num_ws, w_dim] latents to start from; None: no motion
    ):
        self.rows = [
            (row.w_index, G.style_weight(row).detach()) for row in G.layers if row.kind == "input"
        ]  # w index, [numbers, w_dim]
        self.inverses = [torch.linalg.pinv(weight).t() for _, weight in self.rows]  # [numbers, w_dim]
        motion = torch.zeros(count, sum(len(weight) for _, weight in self.rows), device=G.device)
        if start is not None:
            offset = start - without_view(G, start)
            motion = motion + torch.cat([offset[:, i] @ weight.t() / _SCALE for i, weight in self.rows], 1)
        self.motion = motion.requires_grad_(True)  # [N, numbers]

    def apply(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
    ) -> Tensor:  # [N, num_ws, w_dim]
        parts = self.motion.split([len(weight) for _, weight in self.rows], 1)
        moved = list(ws.unbind(1))
        for (i, _), inverse, part in zip(self.rows, self.inverses, parts, strict=True):
            moved[i] = moved[i] + _SCALE * part @ inverse
        return torch.stack(moved, 1)


def without_view(
    G: Generator,
    ws: Tensor,  # [N, num_ws, w_dim]
) -> Tensor:  # [N, num_ws, w_dim]
    """Replace the input's latents by those of the layer after it."""
    ws = ws.clone()
    for i in input_indices(G):
        ws[:, i] = ws[:, min(j for j in style_indices_without_input(G) if j > i)]
    return ws
