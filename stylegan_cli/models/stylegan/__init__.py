from ..family import Family, lazily
from .config import StyleGANConfig
from .presets import PRESETS

FAMILY = Family(StyleGANConfig, lazily(__name__), PRESETS)
