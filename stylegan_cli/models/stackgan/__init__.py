from ..family import DiscriminatorFamily, Family, lazy_build
from .config import StackganConfig, StackganDiscriminatorConfig
from .presets import PRESETS

DISCRIMINATOR = DiscriminatorFamily(StackganDiscriminatorConfig, lazy_build(__name__, "discriminator"))
FAMILY = Family(StackganConfig, lazy_build(__name__), PRESETS, DISCRIMINATOR)
