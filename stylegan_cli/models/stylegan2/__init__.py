from __future__ import annotations

import typing

from ..family import Family
from .config import StyleGAN2Config
from .presets import PRESETS

if typing.TYPE_CHECKING:
    from .network import StyleGAN2


def _build(config: StyleGAN2Config) -> StyleGAN2:
    from .network import StyleGAN2

    return StyleGAN2(config)


FAMILY = Family(StyleGAN2Config, _build, PRESETS)
