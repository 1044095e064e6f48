from .. import r3gan
from ..family import Family, lazy_build
from .config import StyleR3GANConfig
from .presets import PRESETS

FAMILY = Family(StyleR3GANConfig, lazy_build(__name__), PRESETS, r3gan.DISCRIMINATOR)
