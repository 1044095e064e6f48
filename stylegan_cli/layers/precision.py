"""Limits on layer outputs in half precision."""

from __future__ import annotations

import torch

HALF_CLAMP = 256.0  # far above a trained network's activations, far below 65504 (Karras et al. 2020, ADA, appendix D)


def clamp_for(
    clamp: float | None,  # the layer's own bound
    dtype: torch.dtype,  # of the layer's input
) -> float | None:
    """The bound on a layer's output. In float16 there is always one, to prevent overflow."""
    return HALF_CLAMP if clamp is None and dtype == torch.float16 else clamp
