"""Networks small enough to take a millisecond."""

import pytest
import torch

from stylegan_cli.models.config import DiscriminatorConfig, field_names
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


def awake(network):
    """Float64, with random numbers in what starts at zero, so that nothing is left out of the image."""
    generator = torch.Generator().manual_seed(5)
    for p in network.parameters():
        if not p.any():
            p.data.normal_(generator=generator)
    return network.double().requires_grad_(False)


@pytest.fixture
def make_g():
    def make(height=16, width=16, kind=StyleGAN2Config, **options):
        torch.manual_seed(0)
        sizes = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8}
        sizes = {name: size for name, size in sizes.items() if name in field_names(kind)}
        return awake(build_generator(kind(height, width, **sizes | options)))

    return make


@pytest.fixture
def make_d():
    def make(height=16, width=16, **options):
        torch.manual_seed(0)
        options = {"mapping_layers": 2, "channel_base": 64, "channel_max": 8} | options
        return awake(build_discriminator(DiscriminatorConfig(height, width, **options)))

    return make


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
