from ..family import Family, lazy_build
from .config import ProGANConfig
from .presets import PRESETS

FAMILY = Family(ProGANConfig, lazy_build(__name__), PRESETS)
