"""The networks, and the one place where a configuration becomes one."""

import torch

from ..config import DiscriminatorConfig, GeneratorConfig
from .discriminator import Discriminator
from .generator import MappedGenerator
from .growing import set_alpha
from .progan import ProGAN
from .protocol import Generator, LayerInfo, Noise
from .stylegan1 import StyleGAN
from .stylegan2 import StyleGAN2

__all__ = ["Discriminator", "Generator", "LayerInfo", "Noise", "build_discriminator", "build_generator", "set_alpha"]

_FAMILIES = {"stylegan2": StyleGAN2, "stylegan": StyleGAN, "progan": ProGAN}


def build_generator(config: GeneratorConfig) -> MappedGenerator:
    """A generator with fresh weights, laid out as the convolutions like them best."""
    return _FAMILIES[config.family](config).to(memory_format=torch.channels_last)


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """A discriminator with fresh weights, laid out as the convolutions like them best."""
    return Discriminator(config).to(memory_format=torch.channels_last)
