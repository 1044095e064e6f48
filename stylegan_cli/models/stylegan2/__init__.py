from ..family import Family, lazy_build
from .config import StyleGAN2Config
from .presets import PRESETS

FAMILY = Family(StyleGAN2Config, lazy_build(__name__), PRESETS)
