"""Images of a stream: selection, order and conversion to RGB."""

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_rgb, to_uint8
from stylegan_cli.errors import SganError
from stylegan_cli.metrics.stream import Fakes, Reals, stream

CPU = torch.device("cpu")


def test_gray_is_converted_to_rgb():
    gray = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(to_rgb(gray), gray.repeat(1, 3, 1, 1))


def test_alpha_is_composited_onto_white_like_pillow():
    rgba = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (64, 64, 4), np.uint8))
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    white = Image.new("RGBA", (64, 64), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba.numpy())).convert("RGB")).astype(int)
    result = to_rgb(rgba.permute(2, 0, 1)[None])[0]
    assert np.abs(result.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    assert (result[:, 0] == 255).all() and torch.equal(result[:, 1], rgba.permute(2, 0, 1)[:3, 1])
    floats = rgba.permute(2, 0, 1)[None] / 127.5 - 1
    assert (to_uint8(to_rgb(floats)).int() - result.int()).abs().max() <= 1


@pytest.mark.parametrize("ahead", [False, True])
def test_reals_come_once_each_in_a_fixed_order(rgb_set, ahead):
    data = open_dataset(rgb_set)
    images = torch.cat([x for _, x in stream(Reals(data, False, CPU), 32, 5, ahead)])
    again = torch.cat([x for _, x in stream(Reals(data, False, CPU), 20, 32)])
    assert torch.equal(images[:20], again)
    assert as_set(images) == as_set(data.images(range(32))) and not torch.equal(images, data.images(range(32)))


def test_mirrored_reals_also_come_flipped(rgb_set):
    data = open_dataset(rgb_set)
    stored, images = data.images(range(32)), Reals(data, True, CPU)(torch.arange(64))
    assert as_set(images) == as_set(stored) | as_set(stored.flip(3)) and len(as_set(images)) == 64
    assert 4 < len(as_set(images[:32]) & as_set(stored)) < 28


def as_set(images):
    return {x.numpy().tobytes() for x in images}


@pytest.mark.parametrize("c_dim", [0, 3])
def test_fakes_do_not_depend_on_the_batch(tiny_generator, labeled, c_dim):
    G = tiny_generator(c_dim=c_dim)
    classes = labeled([0, 1, 2, 0, 1, 2]) if c_dim else None
    fakes = Fakes(G, classes, CPU, seed=2)
    together = fakes(torch.arange(6))
    alone = torch.cat([fakes(torch.tensor([i])) for i in range(6)])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert together.dtype == torch.uint8 and together.float().std(0).mean() > 3
    assert not torch.equal(Fakes(G, classes, CPU, seed=3)(torch.arange(6)), together)


def test_noise_differs_between_images_and_truncation_is_applied(tiny_generator):
    G = tiny_generator()
    mean = Fakes(G, None, CPU, truncation_psi=0.0)(torch.arange(2)).int()
    assert 0 < (mean[0] - mean[1]).abs().float().mean() < 60  # one w, two noises
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.zero_()
    mean = Fakes(G, None, CPU, truncation_psi=0.0)(torch.arange(2)).int()
    assert (mean[0] - mean[1]).abs().max() <= 1


def test_classes_are_sampled_from_the_dataset(tiny_generator, labeled):
    G, classes = tiny_generator(c_dim=3), labeled([0] * 6 + [2] * 4)
    labels = Fakes(G, classes, CPU).labels(torch.arange(4000))
    assert labels.shape == (4000, 3) and labels.mean(0).tolist() == pytest.approx([0.6, 0, 0.4], abs=0.03)


def test_images_that_are_not_finite_are_counted(tiny_generator):
    G = tiny_generator()
    synthesis = G.synthesis.forward

    def broken(ws, noise):
        images = synthesis(ws, noise=noise)
        images[1, 0, 3, 3], images[2] = torch.nan, torch.inf
        return images

    G.synthesis.forward = broken
    fakes = Fakes(G, None, CPU)
    fakes.check()
    fakes(torch.arange(5))
    with pytest.raises(SganError, match="2 of 5 generated images"):
        fakes.check()
