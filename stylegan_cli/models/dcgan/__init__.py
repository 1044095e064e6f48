from ..family import DiscriminatorFamily, Family, lazy_build
from .config import DCGANConfig, DCGANDiscriminatorConfig
from .presets import PRESETS

DISCRIMINATOR = DiscriminatorFamily(DCGANDiscriminatorConfig, lazy_build(__name__, "discriminator"))
FAMILY = Family(DCGANConfig, lazy_build(__name__), PRESETS, DISCRIMINATOR)
