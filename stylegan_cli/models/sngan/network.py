"""The generator of SNGAN (Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", tables 4 to
6; with labels Miyato and Koyama 2018): residual blocks with batch normalization."""

from __future__ import annotations

from ..classic.network import ResidualGenerator

build = ResidualGenerator  # for `family.lazy_build`
