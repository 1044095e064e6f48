"""Latents, class labels and noise from seeds."""

import numpy as np
import pytest
import torch

from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.latents import latents_from_seeds, noise_maps, sample_noise


@pytest.fixture(scope="module")
def G():
    return build_generator(StyleGAN2Config(24, 48, z_dim=8, w_dim=8, channel_base=64, channel_max=4, mapping_layers=1))


@pytest.mark.parametrize("seed", [0, 85, 2**32 - 1])
def test_latents_are_those_of_other_programs(seed):
    z = latents_from_seeds([3, seed], 512)
    assert z.shape == (2, 512) and z.dtype == torch.float32
    assert np.array_equal(z[1].numpy(), np.random.RandomState(seed).randn(1, 512)[0].astype(np.float32))


def test_a_known_seed():
    assert latents_from_seeds([0], 3)[0].tolist() == pytest.approx([1.76405235, 0.40015721, 0.97873798])


def test_no_seeds():
    assert latents_from_seeds([], 16).shape == (0, 16)


def test_the_global_generator_of_numpy_is_not_changed():
    np.random.seed(1)
    a = np.random.rand()
    np.random.seed(1)
    latents_from_seeds([5], 4)
    assert np.random.rand() == a


@pytest.mark.parametrize("mode", ["const", "none"])
def test_noise_modes_pass_through(G, mode):
    assert noise_maps(G, mode, [1, 2]) == mode


def test_random_noise_belongs_to_the_seed(G):
    maps = noise_maps(G, "random", [1, 2, 2**32 - 1])
    rows = [row for row in G.layers if row.noise]
    assert [tuple(m.shape) for m in maps] == [(3, 1, row.height, row.width) for row in rows]
    again = noise_maps(G, "random", [9, 2])
    for one, other in zip(maps, again):
        assert torch.equal(one[1], other[1]) and not torch.equal(one[0], other[0])


def test_noise_differs_between_layers(G):
    maps = sample_noise(G, 0, "noise", torch.arange(4))
    same_size = [m for m in maps if m.shape == maps[-1].shape]
    assert len(same_size) == 2 and not torch.equal(*same_size)
    assert torch.cat([m.flatten() for m in maps]).std() == pytest.approx(1, abs=0.03)
