"""Segmenters: what class each pixel of a generated image belongs to, read from the features of the generator's layers.

A segmenter is linear: its logits are those of a classifier of the features of all layers, each enlarged to the image,
put together. As enlarging is linear too, the logits of each layer are computed at its own size and enlarged then, so
that no map of thousands of channels is ever built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.generator import LayerInfo, Synthesis


def feature_layers(
    synthesis: Synthesis,
) -> list[LayerInfo]:
    """The layers whose features a segmenter reads."""
    return [row for row in synthesis.layers if row.kind == "conv"]


def inner(
    x: Tensor,  # [N, C, h, w] output of a layer
    row: LayerInfo,
) -> Tensor:  # [N, C, h', w'] without what lies beyond the edges of the image
    m = row.margin
    return x[:, :, m : x.shape[2] - m, m : x.shape[3] - m] if m else x


@dataclass(frozen=True, eq=False)
class Linear:
    """Logits of K classes at each pixel."""

    weights: Mapping[str, Tensor]  # [K, C] by the name of a layer
    bias: Tensor  # [K]

    def read(
        self,
        synthesis: Synthesis,  # that of the model, or a fine-tuned one
        ws: Tensor,  # [N, num_ws, w_dim]
        **options: Any,  # of `Synthesis.forward`
    ) -> tuple[Tensor, Tensor]:  # images [N, C, H, W], logits [N, K, H, W]
        """Synthesize images, and classify their pixels, with gradients."""
        parts: dict[tuple[int, ...], Tensor] = {}  # sums of logits by their size

        def reader(row: LayerInfo, weight: Tensor) -> Callable[[Tensor], None]:
            def read(x: Tensor) -> None:
                logits = F.conv2d(inner(x, row).to(weight.dtype), weight[:, :, None, None])
                size = tuple(logits.shape[2:])
                parts[size] = parts[size] + logits if size in parts else logits

            return read

        rows = [row for row in synthesis.layers if row.name in self.weights]
        images = synthesis(ws, features={row.name: reader(row, self.weights[row.name]) for row in rows}, **options)
        total = self.bias[:, None, None]
        for part in parts.values():
            total = total + enlarge(part, tuple(images.shape[2:]))
        return images, total


def class_maps(
    logits: Tensor,  # [N, K, H, W]
) -> Tensor:  # uint8 [N, H, W]
    return logits.argmax(1).to(torch.uint8)


def enlarge(
    x: Tensor,  # [N, K, h, w]
    size: tuple[int, ...],
) -> Tensor:  # [N, K, H, W]
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


@torch.no_grad()
def features_at(
    synthesis: Synthesis,
    ws: Tensor,  # [N, num_ws, w_dim]
    points: Tensor,  # [N, P] int64, indices of pixels, row by row
    size: tuple[int, int],  # of the images
    **options: Any,  # of `Synthesis.forward`
) -> Tensor:  # [N, P, channels of all layers]
    """The features of all layers at some pixels of each image, as if each layer were enlarged to the image."""
    height, width = size
    y, x = points // width, points % width
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 2)[:, :, None]  # [N, P, 1, 2]
    found: dict[str, Tensor] = {}

    def reader(row: LayerInfo) -> Callable[[Tensor], None]:
        def read(x: Tensor) -> None:
            taken = F.grid_sample(inner(x, row).float(), grid, "bilinear", "border", align_corners=False)
            found[row.name] = taken[..., 0].transpose(1, 2)

        return read

    rows = feature_layers(synthesis)
    synthesis(ws, features={row.name: reader(row) for row in rows}, **options)
    return torch.cat([found[row.name] for row in rows], 2)


def split_by_layer(
    synthesis: Synthesis,
    weight: Tensor,  # [K, channels of all layers]
) -> dict[str, Tensor]:  # [K, C] by the name of the layer
    rows = feature_layers(synthesis)
    parts = weight.split([row.channels for row in rows], 1)
    return {row.name: part.contiguous() for row, part in zip(rows, parts, strict=True)}
