from ..family import Family, lazy_build
from .config import StyleGAN3Config
from .presets import PRESETS

FAMILY = Family(StyleGAN3Config, lazy_build(__name__), PRESETS)
