"""The noise study, compared with NumPy and with known results."""

import numpy as np
import pytest
import torch

from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.generate import SamplingOptions, generate_images, map_seeds
from stylegan_cli.sampling.latent_files import collect_latents, save_latents
from stylegan_cli.sampling.latents import sample_noise
from stylegan_cli.sampling.noise_study import (
    NEGLIGIBLE,
    fine_layers,
    generate_columns,
    noise_columns,
    noise_std,
    std_map,
)


def small_model(strength=0.3, size=32, channels=3):
    torch.manual_seed(0)
    config = StyleGAN2Config(
        size, size, channels=channels, z_dim=8, w_dim=8, channel_base=256, channel_max=8, mapping_layers=2
    )
    G = build_generator(config).eval().requires_grad_(False)
    for row in G.layers:
        if row.noise:
            G.get_submodule(row.name).noise_strength.fill_(strength)
    return G


@pytest.fixture(scope="module")
def G():
    return small_model()


@pytest.fixture
def latents(G):
    return collect_latents(G, [3, 4], SamplingOptions())


def levels(G, is_fine):
    rows = [row for row in G.layers if row.noise]
    return {row.height for row, fine in zip(rows, fine_layers(G.layers), strict=True) if fine == is_fine}


@pytest.mark.parametrize(("size", "fine"), [(256, {64, 128, 256}), (64, {64}), (32, {32}), (16, {16})])
def test_fine_is_64_and_up_or_the_largest(size, fine):
    G = small_model(size=size)
    assert levels(G, True) == fine and levels(G, False) == {4 << k for k in range(7)} & set(range(size + 1)) - fine


def test_columns_match_the_noise_modes(G, latents):
    columns = generate_columns(latents, SamplingOptions())
    assert list(columns) == ["all", "none", "fine", "coarse", "draw 0", "draw 1"]
    for name, mode in (("all", "const"), ("none", "none")):
        options = SamplingOptions(noise_mode=mode)
        expected = torch.stack(list(generate_images(G, lambda i, j: latents.ws[i:j], [0, 0], options)))
        assert (columns[name].int() - expected.int()).abs().max() <= 1
    images = list(columns.values())
    for i, a in enumerate(images):
        assert all(not torch.equal(a, b) for b in images[:i])


def test_fine_and_coarse_add_up_to_all(G, latents):
    columns = noise_columns(latents)
    for own, fine, coarse, stored in zip(columns["all"], columns["fine"], columns["coarse"], G.stored_noise()):
        assert torch.equal(own, fine + coarse) and torch.equal(own[1, 0], stored)
        assert not fine.any() or not coarse.any()


def test_noise_of_a_file_is_used(G, latents, tmp_path):
    noise = {row.name: torch.full((1, 1, row.height, row.width), 2.0) for row in G.layers if row.noise}
    save_latents(tmp_path / "w.npz", latents.ws[:1], noise=noise)
    columns = noise_columns(collect_latents(G, [str(tmp_path / "w.npz"), 4], SamplingOptions()))
    assert (columns["all"][0][0] == 2).all() and torch.equal(columns["all"][0][1, 0], G.stored_noise()[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_standard_deviation_is_that_of_numpy(channels):
    G = small_model(size=16, channels=channels)
    (ws,) = map_seeds(G, [3], SamplingOptions())
    images = [
        G.synthesis(ws[None], noise=sample_noise(G, 0, "noise.study", torch.tensor([k])))[0].double().clamp(-1, 1)
        for k in range(20)
    ]
    if channels == 4:
        images = [x[:3] * (x[3:] + 1) / 2 + (1 - x[3:]) / 2 for x in images]
    expected = (np.stack(images).std(0) ** 2).mean(0) ** 0.5 * 127.5
    assert expected.max() > 1
    for batch in (1, 7, None):
        assert np.allclose(noise_std(G, ws, 20, SamplingOptions(batch=batch)), expected, atol=1e-3)


def test_zero_strength_has_no_standard_deviation():
    G = small_model(0.0)
    (ws,) = map_seeds(G, [3], SamplingOptions())
    for batch in (None, 7):
        std = noise_std(G, ws, 20, SamplingOptions(batch=batch))
        assert std.shape == (32, 32) and std.max() < NEGLIGIBLE / 10
        assert not std_map(std, std.max().item()).any(), "rounding errors are not amplified"


def test_a_small_standard_deviation_is_measured():
    """Rounding images to bytes would hide a deviation of a thousandth of 1/255."""
    (ws,) = map_seeds(small_model(), [3], SamplingOptions())
    a, b = (noise_std(small_model(strength), ws, 10, SamplingOptions()) for strength in (1e-4, 2e-4))
    assert NEGLIGIBLE < a.max() < 0.5
    assert torch.allclose(2 * a, b, rtol=0.05, atol=1e-4)


def test_results_are_reproducible(G, latents):
    again = generate_columns(latents, SamplingOptions())
    assert all(
        torch.equal(again[name], column) for name, column in generate_columns(latents, SamplingOptions()).items()
    )
    assert torch.equal(
        noise_std(G, latents.ws[0], 5, SamplingOptions()), noise_std(G, latents.ws[0], 5, SamplingOptions())
    )


def test_std_map():
    std = torch.tensor([[0.0, 0.5], [1.0, 2.0]])
    assert std_map(std, 2.0).tolist() == [[[0, 64], [128, 255]]]
    assert std_map(std, 1.0).max() == 255
