from ..family import RESIDUAL, Family, lazy_build
from .config import SAGANConfig
from .presets import PRESETS

FAMILY = Family(SAGANConfig, lazy_build(__name__), PRESETS, RESIDUAL)
