"""Images in batches, and their metadata."""

import dataclasses

import numpy as np
import pytest
import torch

from stylegan_cli import load, ops
from stylegan_cli.data.images import to_uint8
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.generate import PRECISIONS, SamplingOptions, generate_images, image_metadata, map_seeds


@pytest.fixture(scope="module")
def G(small_model):
    return small_model(c_dim=3)


def test_seeds_are_mapped_to_latents(G):
    ws = map_seeds(G, [5, 6], SamplingOptions(trunc=0.5, trunc_cutoff=2, class_index=1))
    z = torch.from_numpy(np.stack([np.random.RandomState(s).randn(8) for s in (5, 6)])).float()
    c = torch.tensor([[0.0, 1, 0]] * 2)
    assert torch.equal(ws, G.mapping(z, c, 0.5, 2))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
@pytest.mark.parametrize("precision", ["fp32", "bf32", "bf16", "fp16"])
def test_images_do_not_depend_on_the_batch(G, noise_mode, precision):
    seeds = [3, 1, 4, 15, 9]
    options = SamplingOptions(noise_mode=noise_mode, precision=precision)
    ws = map_seeds(G, seeds, options)
    whole = torch.stack(list(generate_images(G, lambda i, j: ws[i:j], seeds, options)))
    assert whole.dtype == torch.uint8 and whole.shape == (5, 3, 16, 16)
    for batch in (1, 2, 3):
        batched = dataclasses.replace(options, batch=batch)
        parts = torch.stack(list(generate_images(G, lambda i, j: ws[i:j], seeds, batched)))
        assert (whole.int() - parts.int()).abs().max() <= (1 if precision in ("fp32", "bf32") else 4)


# ------------------------------------------------------------------------------------------- precision


@torch.no_grad()
def images_in(G, precision, seeds=range(4)):
    """Images [N, C, H, W] uint8 with a standard deviation of a quarter of the range."""
    options = SamplingOptions(precision=precision)
    images = options.synthesizer(G)(map_seeds(G, seeds, options), noise="const")
    exact = SamplingOptions(precision="fp32").synthesizer(G)(map_seeds(G, seeds, options), noise="const")
    return to_uint8((images - exact.mean()) * (0.5 / exact.std()))


@torch.no_grad()
def wide_model(architecture):
    """A model with random weights, 64² pixels, and enough channels for bfloat16 products."""
    torch.manual_seed(0)
    config = StyleGAN2Config(64, 64, z_dim=32, w_dim=32, channel_base=4096, channel_max=128, architecture=architecture)
    G = build_generator(config).eval()
    for name, parameter in G.synthesis.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    return G


@pytest.fixture(scope="module")
def critters():
    return load().eval()


def test_bfloat16_products_change_few_values(critters):
    """Rule 10 of the design: within 1/255 in 99.9 % of the values; half-precision features do not keep it."""
    for G in (critters, wide_model("skip")):
        exact = images_in(G, "fp32", range(8))
        images = {name: images_in(G, name, range(8)).int() for name in ("bf32", "bf16")}
        close = {name: ((image - exact.int()).abs() <= 1).float().mean() for name, image in images.items()}
        assert close["bf32"] >= 0.999 and close["bf16"] < 0.999
        assert not torch.equal(images["bf32"], exact.int())


@pytest.mark.parametrize("faster", [False, True])
def test_auto_is_bfloat16_products_where_these_are_faster_and_exact_enough(monkeypatch, critters, faster):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: faster, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    auto, skip = SamplingOptions(), wide_model("skip")
    assert auto.precision == "auto" and auto.precision_for(skip) == ("bf32" if faster else "fp32")
    assert auto.precision_for(wide_model("orig")) == "fp32"  # the error of all layers is in the image
    assert auto.precision_for(critters) == "fp32"  # small
    assert auto.for_measuring().precision_for(skip) == "fp32"
    assert torch.equal(images_in(skip, "auto"), images_in(skip, "bf32" if faster else "fp32"))
    with ops.use("reference"):
        assert auto.precision_for(skip) == "fp32"
        assert SamplingOptions(precision="bf32").precision_for(skip) == "fp32"
    for name in PRECISIONS[1:]:
        assert SamplingOptions(precision=name).precision_for(skip) == name


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
