"""What half precision asks of a layer."""

from __future__ import annotations

import torch

HALF_CLAMP = 256.0  # far above what a trained network makes, far below 65504 (Karras et al. 2020, ADA, appendix D)


def clamp_for(
    clamp: float | None,  # the layer's own bound
    dtype: torch.dtype,  # that it runs in
) -> float | None:
    """The layer's bound on its output; in float16 there is always one, so that nothing overflows."""
    return HALF_CLAMP if clamp is None and dtype == torch.float16 else clamp
