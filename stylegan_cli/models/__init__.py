"""The networks, and the one place where a configuration becomes one."""

import torch

from ..config import DiscriminatorConfig, GeneratorConfig
from .discriminator import Discriminator
from .protocol import Generator, LayerInfo, Noise
from .stylegan2 import StyleGAN2

__all__ = ["Discriminator", "Generator", "LayerInfo", "Noise", "build_discriminator", "build_generator"]


def build_generator(config: GeneratorConfig) -> StyleGAN2:
    """A generator with fresh weights, laid out as the convolutions like them best."""
    return StyleGAN2(config).to(memory_format=torch.channels_last)


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """A discriminator with fresh weights, laid out as the convolutions like them best."""
    return Discriminator(config).to(memory_format=torch.channels_last)
