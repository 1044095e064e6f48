"""Translating and rotating images: the input transform, its options, videos, and models that take none."""

import math

import numpy as np
import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.generator import is_similarity
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.sampling.generate import SamplingOptions, generate_images, map_seeds
from stylegan_cli.sampling.interpolate import plan_video
from stylegan_cli.sampling.view import style_indices_without_input, view_path, view_transform

SMALL = {"channel_base": 1024, "channel_max": 64, "z_dim": 16, "w_dim": 16}


@pytest.fixture(scope="module")
def G(moving_generator):
    return moving_generator(32, 1024, 64)


def images(G, options, seeds=(0, 1)):
    latents = map_seeds(G, list(seeds), options)
    return torch.stack(list(generate_images(G, lambda i, j: latents[i:j], list(seeds), options))).float()


def test_positive_translation_moves_right_and_down(G):
    still = images(G, SamplingOptions())
    moved = images(G, SamplingOptions(translate=(0.25, 0.125)))  # 8 and 4 pixels
    error = (moved[:, :, 4:, 8:] - still[:, :, :-4, :-8]).square().mean().sqrt()
    assert still.std() > 10 and error < 0.5  # of 255: rounding
    assert (moved - still).square().mean().sqrt() > 5


def test_translation_of_a_rectangle_is_in_its_own_widths_and_heights():
    torch.manual_seed(0)
    G = build_generator(StyleGAN3Config(32, 64, **SMALL)).synthesis.input
    w = torch.zeros(1, 16)
    still, moved = G(w, None), G(w, view_transform((0.125, 0.25), None))
    s = G.rate // 4  # pixels of 1/8 of the width, and of 1/4 of the height
    torch.testing.assert_close(moved[:, :, s:, s:], still[:, :, :-s, :-s], atol=1e-5, rtol=0)


def test_a_rectangle_rotates_then_translates_in_its_own_widths_and_heights():
    torch.manual_seed(0)
    G = build_generator(StyleGAN3Config(32, 64, **SMALL))
    assert SamplingOptions(rotate=90.0, translate=(0.125, 0.25)).view(G) is not None
    w, layer = torch.zeros(1, 16), G.synthesis.input
    turned = layer(w, SamplingOptions(rotate=90.0).view(G))
    moved = layer(w, SamplingOptions(rotate=90.0, translate=(0.125, 0.25)).view(G))
    s = layer.rate // 4
    torch.testing.assert_close(moved[:, :, s:, s:], turned[:, :, :-s, :-s], atol=1e-4, rtol=0)


def test_positive_rotation_is_counterclockwise(G):
    w = torch.zeros(1, 16)
    layer = G.synthesis.input
    turned = layer(w, view_transform(None, 90))
    torch.testing.assert_close(turned, torch.rot90(layer(w, None), 1, [2, 3]), atol=1e-4, rtol=0)


def test_the_image_turns_about_its_center_then_moves():
    point = np.array([0.0, -0.25, 1])  # above the center
    inverse = view_transform((0.1, 0.2), 90).numpy()
    moved = np.linalg.inv(inverse) @ point  # counterclockwise on the screen: to the left of the center
    np.testing.assert_allclose(moved, [-0.25 + 0.1, 0.2, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("loop", "rotate", "times", "angles"),
    [
        (False, 90, [0, 1, 2], [0, 45, 90]),
        (True, 90, [0, 0.5, 1, 1.5], [0, 45, 90, 45]),
        (True, 360, [0, 0.5, 1, 1.5], [0, 90, 180, 270]),
    ],
)
def test_paths(loop, rotate, times, angles):
    path = view_path((0.2, 0), rotate, 2.0, loop)
    for transform, angle, time in zip(path(torch.tensor(times).double()), angles, times, strict=True):
        share = (1 - math.cos(math.pi * time)) / 2 if loop else time / 2
        torch.testing.assert_close(transform, view_transform((0.2 * share, 0), angle), atol=1e-9, rtol=0)


def test_video_locks_the_view_and_moves(G):
    options = SamplingOptions(rotate=360.0)
    free, locked = (plan_video(G, [0, 1], options, "linear", steps=4, lock_view=lock) for lock in (False, True))
    ws, kept = free.ws[0:8], locked.ws[0:8]
    assert (ws[:, 0] - ws[:1, 0]).abs().max() > 0.1
    torch.testing.assert_close(kept[:, 0], ws[:1, 0].expand(8, -1))
    torch.testing.assert_close(kept[:, 1:], ws[:, 1:])
    assert free.transforms is not None
    torch.testing.assert_close(free.transforms[2:3][0], view_transform(None, 90), atol=1e-9, rtol=0)
    assert plan_video(G, [0, 1], SamplingOptions(), "linear").transforms is None


def test_one_image_can_move(G):
    video = plan_video(G, [3], SamplingOptions(rotate=90.0), "spline", steps=4)
    assert video.frames == 8 and (video.ws[0:8] - video.ws[0:1]).abs().max() < 1e-5
    with pytest.raises(SganError, match="One keyframe is not enough"):
        plan_video(G, [3], SamplingOptions(), "spline")


def test_directions_leave_the_view_alone_unless_asked(G):
    assert style_indices_without_input(G) == list(range(1, 16))


def test_models_without_an_input_to_move():
    G = build_generator(StyleGAN2Config(16, 16, channel_base=128, channel_max=8))
    for options in (SamplingOptions(translate=(0, 0)), SamplingOptions(rotate=0)):
        with pytest.raises(SganError, match="needs a model with an input transform, which this StyleGAN2 model"):
            images(G, options)
    with pytest.raises(SganError, match="--lock-view needs a model with an input transform"):
        plan_video(G, [0, 1], SamplingOptions(), "linear", lock_view=True)


def test_latents_that_do_not_move_the_image_cannot_be_locked():
    G = build_generator(StyleGAN2Config(16, 16, channel_base=128, channel_max=8, input="fourier"))
    assert images(G, SamplingOptions(translate=(0.25, 0))).shape[1:] == (3, 16, 16)
    with pytest.raises(SganError, match="--lock-view needs a model whose latents move the image"):
        plan_video(G, [0, 1], SamplingOptions(), "linear", lock_view=True)


@pytest.mark.parametrize(
    ("matrix", "valid"),
    [
        ([[1, 0, 5], [0, 1, 0], [0, 0, 1]], True),
        ([[0, 2, 0], [-2, 0, 0], [0, 0, 1]], True),
        ([[1, 0, 0], [0, 2, 0], [0, 0, 1]], False),  # stretches
        ([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], False),  # shears
        ([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], False),  # mirrors
        ([[0, 0, 0], [0, 0, 0], [0, 0, 1]], False),
        ([[1, 0, 0], [0, 1, 0], [0.1, 0, 1]], False),
        ([[math.nan, 0, 0], [0, 1, 0], [0, 0, 1]], False),
    ],
)
def test_transforms_must_be_similarities(G, matrix, valid):
    transform = torch.tensor(matrix, dtype=torch.float32)
    assert is_similarity(transform) == valid
    if not valid:
        with pytest.raises(ValueError, match="similarity"):
            G.synthesis(torch.zeros(1, 16, 16), transform=transform)
    with pytest.raises(ValueError, match=r"must have shape \[3, 3\] or \[1, 3, 3\]"):
        G.synthesis(torch.zeros(1, 16, 16), transform=transform[None].expand(2, -1, -1))


@pytest.mark.parametrize("fields", [{"translate": (1,)}, {"translate": "1,2"}, {"rotate": math.inf}, {"rotate": "9"}])
def test_bad_options(fields):
    with pytest.raises(SganError, match="cannot be"):
        SamplingOptions(**fields)
