"""Networks small enough to take a millisecond."""

import pytest
import torch

from stylegan_cli.config import DiscriminatorConfig, GeneratorConfig
from stylegan_cli.models import build_discriminator, build_generator


def awake(network):
    """Float64, with random numbers in what starts at zero, so that nothing is left out of the picture."""
    generator = torch.Generator().manual_seed(5)
    for p in network.parameters():
        if not p.any():
            p.data.normal_(generator=generator)
    return network.double().requires_grad_(False)


@pytest.fixture
def make_g():
    def make(height=16, width=16, **options):
        torch.manual_seed(0)
        options = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8} | options
        return awake(build_generator(GeneratorConfig(height, width, **options)))

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
