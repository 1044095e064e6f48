from __future__ import annotations

import typing

from ..family import Family
from .config import ProGANConfig
from .presets import PRESETS

if typing.TYPE_CHECKING:
    from .network import ProGAN


def _build(config: ProGANConfig) -> ProGAN:
    from .network import ProGAN

    return ProGAN(config)


FAMILY = Family(ProGANConfig, _build, PRESETS)
