from ..family import Family, lazily
from .config import ProGANConfig
from .presets import PRESETS

FAMILY = Family(ProGANConfig, lazily(__name__), PRESETS)
