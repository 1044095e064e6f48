from ..family import Family, lazy_build
from .config import StyleGANConfig
from .presets import PRESETS

FAMILY = Family(StyleGANConfig, lazy_build(__name__), PRESETS)
