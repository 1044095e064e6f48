"""A generator from the weights of two: layer swapping, and interpolation of weights.

Fine-tuning moves weights little, so that layers of a model and of its fine-tuned copies, or of two such copies, still
fit together (Pinkney and Adler 2020, "Resolution Dependent GAN Interpolation for Controllable Image Synthesis Between
Domains").
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence

import torch

from ..config import base_size
from .generator import Generator, LayerInfo


def style_units(
    layers: Sequence[LayerInfo],
) -> list[int]:  # of each layer, an index of w
    """The latent that a layer belongs to. A toRGB layer takes the latent of the level above it, but its weights are
    trained with the layer before it."""
    own = {row.w_index for row in layers if row.kind != "torgb"}
    units: list[int] = []
    for row in layers:
        units.append(units[-1] if row.kind == "torgb" and row.w_index in own and units else row.w_index)
    return units


def level_units(
    layers: Sequence[LayerInfo],
    size: tuple[int, int],  # (height, width) of the image
) -> list[int]:  # of each layer
    """The level of a layer, 4 * 2^k."""
    lowest = base_size(*size, 0)[0]
    return [4 * round((row.height - 2 * row.margin) / lowest) for row in layers]


def layer_weights(
    units: Sequence[int],  # of each layer
    chosen: Collection[int],  # units
    width: float = 0.0,  # of the transition, in units; 0: hard
) -> list[float]:  # of each layer, 0 to 1
    """Weights of the second generator: 1 in the chosen units and 0 in others, or a logistic function of the distance
    from their edge."""
    order = sorted(set(units))
    inside = [i for i, unit in enumerate(order) if unit in chosen]
    outside = [i for i, unit in enumerate(order) if unit not in chosen]
    weights = {}
    for i, unit in enumerate(order):
        others, sign = (outside, 1) if unit in chosen else (inside, -1)
        distance = sign * (min((abs(i - j) for j in others), default=math.inf) - 0.5)
        x = distance / width if width else math.copysign(math.inf, sign)
        weights[unit] = 1 / (1 + math.exp(-x)) if x > -500 else 0.0
    return [weights[unit] for unit in units]


def blend(
    a: Generator,
    b: Generator,  # of the same configuration
    weights: Sequence[float],  # of b in each layer of the layer table
    rest: float = 0.0,  # of b in the mapping network and the mean of w
) -> Generator:
    """Interpolate from the weights of `a` to those of `b`. With 0 and 1 they are copied."""
    result, others = copy.deepcopy(a), b.state_dict()
    for name, tensor in result.state_dict().items():
        weight = _weight_of(name, a.layers, weights) if name.startswith("synthesis.") else rest
        if weight:
            other = others[name].to(tensor)
            tensor.copy_(torch.lerp(tensor, other, weight) if weight < 1 and tensor.is_floating_point() else other)
    return result


def _weight_of(name: str, layers: Sequence[LayerInfo], weights: Sequence[float]) -> float:
    """That of the layer, else of the last layer in its block, else of the first layer: constants come before it."""
    for row, weight in zip(layers, weights, strict=True):
        if name.startswith(f"{row.name}."):
            return weight
    block = name.rpartition(".")[0].rpartition(".")[0]
    same = [w for row, w in zip(layers, weights, strict=True) if block.count(".") and row.name.startswith(f"{block}.")]
    return same[-1] if same else weights[0]
