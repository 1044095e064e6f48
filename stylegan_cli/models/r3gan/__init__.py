from ..family import DiscriminatorFamily, Family, lazy_build
from .config import R3GANConfig, R3GANDiscriminatorConfig
from .presets import PRESETS

DISCRIMINATOR = DiscriminatorFamily(R3GANDiscriminatorConfig, lazy_build(__name__, "discriminator"))
FAMILY = Family(R3GANConfig, lazy_build(__name__), PRESETS, DISCRIMINATOR)
