"""A small model with noise."""

import pytest
import torch

from stylegan_cli.models.dcgan.config import DCGANConfig
from stylegan_cli.models.lapgan.config import LapganConfig
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.sngan.config import SNGANConfig
from stylegan_cli.models.stackgan.config import StackganConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


@pytest.fixture(scope="session")
def direct_model():
    """A model without a mapping network, with random weights: direct_model("dcgan", c_dim=3) -> G."""
    families = {
        "dcgan": (DCGANConfig, {}),
        "sngan": (SNGANConfig, {}),
        "lapgan": (LapganConfig, {"hidden": 12, "lowest": 4}),
        "stackgan": (StackganConfig, {"enlarge": 2, "condition": 3}),
    }

    def make(family, **changes):
        torch.manual_seed(0)
        config, own = families[family]
        config = config(16, 16, **{"z_dim": 12, "channel_base": 64, "channel_max": 8} | own | changes)
        return build_generator(config).eval().requires_grad_(False)

    return make


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
