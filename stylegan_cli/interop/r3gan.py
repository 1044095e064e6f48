"""Networks of R3GAN, as its authors' program saves them: whole modules, or their state dictionaries.

All settings follow from the shapes and from the filters. The moving average has no mean of w: that of z is 0, and that
of embedded labels is measured.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..config import base_size
from ..models.r3gan.checkpoints import discriminator_names, generator_names
from ..models.r3gan.config import R3GANConfig, R3GANDiscriminatorConfig
from ..pickled import PickleError
from .checkpoint import ComputedTensor, FormatError, Loadable, infer_channels, map_names, shape_of
from .modules import Module

GENERATOR, DISCRIMINATOR = "Model.AggregationLayer.Layer.weight", "Model.ExtractionLayer.Layer.weight"
_HALF = 4  # levels that run in half precision, if the file does not say
_MAX_STAGES, _MAX_BLOCKS = 16, 64


def generator_of(
    weights: dict[str, Any],
    module: Module | None,  # the whole network, if it was saved as one
) -> tuple[R3GANConfig, dict[str, Loadable]]:
    channels, blocks = _stages(weights)
    _, h0, w0 = shape_of(weights, "Model.MainLayers.0.Layers.0.Basis", 3)
    w_dim = shape_of(weights, "Model.MainLayers.0.Layers.0.LinearLayer.weight", 2)[1]
    embedded, c_dim = _embedding(weights)
    z_dim = w_dim - embedded
    if embedded and embedded != z_dim:
        raise FormatError(f"its labels have an embedding of {embedded} numbers, and z has {z_dim}")
    config = R3GANConfig(
        **_common(weights, module, channels, blocks, (h0, w0), at=1),
        channels=shape_of(weights, GENERATOR, 4)[0],
        z_dim=z_dim,
        c_dim=c_dim,
    )
    tensors = map_names(generator_names(channels, blocks, bool(c_dim)), weights, _is_filter)
    return config, tensors | {"mapping.w_avg": ComputedTensor((w_dim,))}


def discriminator_of(
    weights: dict[str, Any],
    module: Module | None,  # the whole network, if it was saved as one
) -> tuple[R3GANDiscriminatorConfig, dict[str, Loadable]]:
    channels, blocks = _stages(weights, first=0)
    end = f"Model.MainLayers.{len(channels) - 1}.Layers.{blocks}.Basis.weight"
    _, _, h0, w0 = shape_of(weights, end, 4)
    embedded, c_dim = _embedding(weights)
    if embedded and embedded != channels[-1]:
        raise FormatError(f"its labels have an embedding of {embedded} numbers, and its last features {channels[-1]}")
    config = R3GANDiscriminatorConfig(
        **_common(weights, module, channels[::-1], blocks, (h0, w0), at=0),
        channels=shape_of(weights, DISCRIMINATOR, 4)[1],
        c_dim=c_dim,
    )
    return config, map_names(discriminator_names(channels, blocks, bool(c_dim)), weights, _is_filter)


def _common(
    weights: dict[str, Any],
    module: Module | None,
    channels: list[int],  # of each level, lowest first
    blocks: int,
    lowest: tuple[int, int],  # height and width of the lowest level
    at: int,  # place of the first block of a stage
) -> dict[str, Any]:
    up = len(channels) - 1
    height, width = lowest[0] << up, lowest[1] << up
    if base_size(height, width, 0) != (*lowest, up):
        raise FormatError(f"its lowest level has {lowest[0]}x{lowest[1]} pixels")
    block = f"Model.MainLayers.0.Layers.{at}"
    wide, narrow, *_ = shape_of(weights, f"{block}.LinearLayer1.Layer.weight", 4)
    if wide % narrow:
        raise FormatError(f"its blocks widen {narrow} channels to {wide}")
    return {
        "height": height,
        "width": width,
        "blocks": blocks,
        "expansion": wide // narrow,
        "group_channels": shape_of(weights, f"{block}.LinearLayer2.Layer.weight", 4)[1],
        "fir": _fir(weights),
        "half_levels": _HALF if module is None else _half_levels(module),
        **infer_channels({4 << k: count for k, count in enumerate(channels)}),
    }


def _stages(weights: dict[str, Any], first: int = 1) -> tuple[list[int], int]:
    """The channels of each stage, and the number of blocks, which must be the same in all."""
    channels, counts = [], set()
    stages = {int(m[1]) for name in weights if (m := re.match(r"Model\.MainLayers\.(\d{1,2})\.", str(name)))}
    for k in range(min(len(stages), _MAX_STAGES)):
        pattern = rf"Model\.MainLayers\.{k}\.Layers\.\d{{1,2}}\.LinearLayer1\.Layer\.weight"
        counts.add(sum(bool(re.fullmatch(pattern, str(name))) for name in weights))
        channels.append(shape_of(weights, f"Model.MainLayers.{k}.Layers.{first}.LinearLayer1.Layer.weight", 4)[1])
    if len(counts) != 1 or not 1 <= min(counts) <= _MAX_BLOCKS:
        raise FormatError(f"its stages have different numbers of blocks ({', '.join(map(str, sorted(counts)))})")
    return channels, counts.pop()


def _embedding(weights: dict[str, Any]) -> tuple[int, int]:
    """The size of the embedded labels, and the number of classes; 0 and 0 without labels."""
    name = "Model.EmbeddingLayer.weight"
    rows, columns = shape_of(weights, name, 2) if name in weights else (0, 0)
    return rows, columns


def _fir(weights: dict[str, Any]) -> tuple[float, ...]:
    """The resampling filter, from the two-dimensional one of the first layer that resamples."""
    name = next((name for name in weights if _is_filter(name)), None)
    if name is None:  # a single stage
        return (1.0, 3.0, 3.0, 1.0)
    rows, columns = shape_of(weights, name, 2)
    if rows != columns or rows > 12:
        raise PickleError(f"its resampling filter has the shape {rows}x{columns}")
    kernel = weights[name].load().double()
    taps = kernel.sum(1) / kernel.sum()
    if not torch.allclose(torch.outer(taps, taps), kernel / kernel.sum(), atol=1e-6):
        raise FormatError("its resampling filter is not separable")
    return tuple(round(float(tap / taps.abs().min()), 4) for tap in taps)


def _half_levels(module: Module) -> int:
    """How many stages run in half precision."""
    stages = module.modules["Model"].modules.get("MainLayers") if "Model" in module.modules else None
    types = [stage.DataType for stage in stages.modules.values()] if stages else []
    return sum(getattr(kind, "meaning", None) in ("bfloat16", "float16") for kind in types)


def _is_filter(name: str) -> bool:
    return name.endswith(".Resampler.Kernel")
