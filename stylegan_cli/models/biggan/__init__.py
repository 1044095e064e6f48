from ..family import RESIDUAL, Family, lazy_build
from .config import BigGANConfig
from .presets import PRESETS

FAMILY = Family(BigGANConfig, lazy_build(__name__), PRESETS, RESIDUAL)
