from ..family import DiscriminatorFamily, Family, lazy_build
from .config import LapganConfig, LapganDiscriminatorConfig
from .presets import PRESETS

DISCRIMINATOR = DiscriminatorFamily(LapganDiscriminatorConfig, lazy_build(__name__, "discriminator"))
FAMILY = Family(LapganConfig, lazy_build(__name__), PRESETS, DISCRIMINATOR)
