"""The generator of SAGAN (Zhang et al. 2019, "Self-Attention Generative Adversarial Networks"): residual blocks with
spectral normalization and self-attention."""

from __future__ import annotations

from ..classic.network import ResidualGenerator

build = ResidualGenerator  # for `family.lazy_build`
