from ..family import RESIDUAL, Family, lazy_build
from .config import SNGANConfig
from .presets import PRESETS

FAMILY = Family(SNGANConfig, lazy_build(__name__), PRESETS, RESIDUAL)
