"""Images in batches, and their metadata."""

import dataclasses

import numpy as np
import pytest
import torch

from stylegan_cli.sampling.generate import SamplingOptions, generate_images, image_metadata, map_seeds


@pytest.fixture(scope="module")
def G(small_model):
    return small_model(c_dim=3)


def test_seeds_are_mapped_to_latents(G):
    ws = map_seeds(G, [5, 6], SamplingOptions(trunc=0.5, trunc_cutoff=2, class_index=1))
    z = torch.from_numpy(np.stack([np.random.RandomState(s).randn(8) for s in (5, 6)])).float()
    c = torch.tensor([[0.0, 1, 0]] * 2)
    assert torch.equal(ws, G.mapping(z, c, 0.5, 2))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_images_do_not_depend_on_the_batch(G, noise_mode, precision):
    seeds = [3, 1, 4, 15, 9]
    options = SamplingOptions(noise_mode=noise_mode, precision=precision)
    ws = map_seeds(G, seeds, options)
    whole = torch.stack(list(generate_images(G, lambda i, j: ws[i:j], seeds, options)))
    assert whole.dtype == torch.uint8 and whole.shape == (5, 3, 16, 16)
    for batch in (1, 2, 3):
        batched = dataclasses.replace(options, batch=batch)
        parts = torch.stack(list(generate_images(G, lambda i, j: ws[i:j], seeds, batched)))
        assert (whole.int() - parts.int()).abs().max() <= (1 if precision == "fp32" else 4)


def test_images_are_the_rounded_output_of_the_network(G):
    ws = map_seeds(G, [2], SamplingOptions())
    image = G.synthesis(ws, noise="const")[0]
    (result,) = generate_images(G, lambda i, j: ws[i:j], [2], SamplingOptions())
    assert torch.equal(result, (image * 127.5 + 128).clamp(0, 255).to(torch.uint8))


def test_random_noise_depends_on_the_seed_alone(G):
    ws = map_seeds(G, [2], SamplingOptions()).expand(3, -1, -1)
    a, b, c = generate_images(G, lambda i, j: ws[i:j], [7, 8, 7], SamplingOptions(noise_mode="random"))
    assert torch.equal(a, c) and not torch.equal(a, b)


def test_metadata():
    metadata = image_metadata(
        "0123456789abcdef", SamplingOptions(trunc=0.7), ["sgan", "generate", "--model", "a b"], seed=3
    )
    assert metadata["model"] == "0123456789abcdef"
    assert metadata["command"] == "sgan generate --model 'a b'"
    assert metadata["seed"] == "3" and metadata["trunc"] == "0.7" and "trunc_cutoff" not in metadata
    assert metadata["Software"].startswith("stylegan_cli ")
    assert "command" not in image_metadata("0123456789abcdef", SamplingOptions(), [])
