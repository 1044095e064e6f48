"""Networks so small that they run in a millisecond."""

import pytest
import torch

from stylegan_cli.models.config import LevelsDiscriminatorConfig, field_names
from stylegan_cli.models.registry import build_discriminator, build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


def randomize(network):
    """Convert to float64, and replace weights of zero with random numbers, so that every layer affects the output."""
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
        return randomize(build_generator(kind(height, width, **sizes | options)))

    return make


@pytest.fixture
def make_d():
    def make(height=16, width=16, **options):
        torch.manual_seed(0)
        options = {"mapping_layers": 2, "channel_base": 64, "channel_max": 8} | options
        return randomize(build_discriminator(LevelsDiscriminatorConfig(height, width, **options)))

    return make


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
