from __future__ import annotations

import typing

from ..family import Family
from .config import StyleGANConfig
from .presets import PRESETS

if typing.TYPE_CHECKING:
    from .network import StyleGAN


def _build(config: StyleGANConfig) -> StyleGAN:
    from .network import StyleGAN

    return StyleGAN(config)


FAMILY = Family(StyleGANConfig, _build, PRESETS)
