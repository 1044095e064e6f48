"""Perceptual path length (Karras et al. 2019, "A Style-Based Generator Architecture", section 4.1, the equations for Z
and W; for StyleGAN2, with end points in W, Karras et al. 2020, section 3):

PPL = E [ d(g(x(t)), g(x(t + ε))) / ε² ],   ε = 1e-4

d is LPIPS with VGG16 (Zhang et al. 2018). The path x connects two latents, in Z along the sphere (slerp), in W along a
line (lerp); t ~ U(0, 1) for the full path, 0 for its end. The mean excludes values below the 1st and above the 99th
percentile.

path_pairs.py generates the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .metric import DISTANCES, LatentPath, Metric, Settings, Value

if TYPE_CHECKING:
    from torch import Tensor

    from .statistics import Tensors

EPSILON = 1e-4
_MIN_SIDE = 16  # pixels: the smallest input of VGG16


def perceptual_path_length(
    distances: Tensor,  # [N] d / ε² of each pair
) -> float:
    """Mean between the percentiles, inclusive; each percentile is one of the distances."""
    d = distances.double().numpy()
    low, high = np.percentile(d, 1, method="lower"), np.percentile(d, 99, method="higher")
    return float(d[(d >= low) & (d <= high)].mean())


def _compute(reals: Tensors, fakes: Tensors, settings: Settings) -> list[Value]:
    return [Value(perceptual_path_length(fakes["features"]))]


def _metric(name: str, description: str, space: Literal["z", "w"], full: bool, crop: bool, alias: str = "") -> Metric:
    return Metric(
        name + "_{num}",
        description,
        DISTANCES,
        "features",
        _compute,
        alias=alias,
        min_side=_MIN_SIDE * (2 if crop else 1),
        path=LatentPath(space, full, crop),
    )


METRICS = (
    _metric("ppl2_wend", "perceptual path length at the ends of paths in W", "w", full=False, crop=False, alias="ppl"),
    _metric("ppl_zfull", "... along paths in Z, for the center of a face", "z", full=True, crop=True),
    _metric("ppl_wfull", "... along paths in W, for the center of a face", "w", full=True, crop=True),
    _metric("ppl_zend", "... at the ends of paths in Z, for the center of a face", "z", full=False, crop=True),
    _metric("ppl_wend", "... at the ends of paths in W, for the center of a face", "w", full=False, crop=True),
)
