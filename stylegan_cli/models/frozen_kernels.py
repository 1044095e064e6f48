"""What the layers of a frozen network take where kernels run them: one kernel prepares the styles and factors of all
layers, and each layer's last kernel does what the next one would begin with."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.modulated import FrozenConv2d, FrozenToRGB, ImagePart, KernelInputs
from ..ops.frozen import LAYERS, frozen_styles
from ..ops.modulation import HALF
from .generator import Synthesis


class KernelStyles:
    """Calls with the styles of all layers yield what each layer takes, by the index of its row."""

    @classmethod
    def of(
        cls,
        synthesis: Synthesis,
        layers: list[nn.Module],  # of each row, frozen
        order: list[int],  # of the rows in styles
    ) -> KernelStyles | None:
        """None for networks with other layers or another precision, or connected in another way."""
        known = all(isinstance(layer, FrozenConv2d | FrozenToRGB) for layer in layers)
        if not (synthesis.is_chain and known and len(layers) <= LAYERS):
            return None
        return cls(layers, order) if next(synthesis.parameters()).dtype == torch.float32 else None

    def __init__(
        self,
        layers: list[Any],  # FrozenConv2d or FrozenToRGB; a toRGB follows the convolution that it reads
        order: list[int],
    ):
        self.layers, self.order = layers, order
        self.is_torgb = [isinstance(layers[i], FrozenToRGB) for i in order]
        self.matrices = [layers[i].matrix if image else layers[i].squares for i, image in zip(order, self.is_torgb)]
        self.outputs, self.inputs = ([m.shape[k] for m in self.matrices] for k in range(2))
        self.convolutions = [i for i, layer in enumerate(layers) if isinstance(layer, FrozenConv2d)]
        self.normalize = any(layer.dtype in HALF for layer in layers)

    @functools.cached_property
    def weights(self) -> Tensor:
        """The matrices, one after the other. Only the kernels need them."""
        return torch.cat([m.flatten() for m in self.matrices])

    def __call__(
        self,
        styles: Tensor,  # [L, N, S]
    ) -> dict[int, KernelInputs | ImagePart]:
        results = frozen_styles(styles, self.weights, self.inputs, self.outputs, self.is_torgb, self.normalize)
        style, d = (dict(zip(self.order, parts, strict=True)) for parts in results)
        rows: dict[int, KernelInputs | ImagePart] = {}
        part, multiplied = None, False
        for i, after in zip(self.convolutions, [*self.convolutions[1:], len(self.layers)], strict=True):
            layer, is_last = self.layers[i], after == len(self.layers)
            joined = None  # the level's image, if it is computed with the features
            if i + 1 in style and i + 1 not in self.convolutions:
                part = rows[i + 1] = ImagePart(self.layers[i + 1], style[i + 1], part, is_last)
                joined = part if layer.computes_image(self.layers[i + 1]) else None
            alone = not is_last and (joined is not None or i + 1 == after)  # only the next convolution reads the result
            follows = alone and not (layer.is_fused or self.layers[after].is_fused)
            dtype = self.layers[after].dtype if alone else layer.dtype
            own = None if multiplied else style[i]
            rows[i] = KernelInputs(own, d[i], style[after] if follows else None, dtype, joined)
            multiplied = follows
        return rows
