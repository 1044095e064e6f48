from ..family import Family, lazily
from .config import StyleGAN2Config
from .presets import PRESETS

FAMILY = Family(StyleGAN2Config, lazily(__name__), PRESETS)
