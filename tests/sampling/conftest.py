"""A small model with noise."""

import pytest
import torch

from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


@pytest.fixture(scope="session")
def small_model():
    """A StyleGAN2 of 16 x 16 with random weights: small_model(seed, c_dim=3) -> G."""

    def make(seed=0, **changes):
        torch.manual_seed(seed)
        config = StyleGAN2Config(16, 16, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2, **changes)
        G = build_generator(config).eval().requires_grad_(False)
        G.mapping.w_avg.normal_()
        for row in G.layers:
            if row.noise:
                G.get_submodule(row.name).noise_strength.fill_(0.3)
        return G

    return make
