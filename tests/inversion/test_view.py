"""Projection with rotation and translation as variables of their own."""

import pytest
import torch

from stylegan_cli.detectors.distances import PixelLoss
from stylegan_cli.inversion.projector import ProjectionOptions, Projector, Start, project
from stylegan_cli.inversion.view import View, without_view
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config


@pytest.fixture(scope="module")
def G(moving_generator):
    return moving_generator(16, 512, 32)


def numbers(G, ws):  # cos, sin, x, y of the input, before their normalization
    return G.synthesis.input.affine(ws[:, 0])


def test_motion_changes_the_numbers_of_the_input_and_nothing_else(G):
    ws = G.mapping(torch.randn(2, 16))
    view = View(G, 2)
    torch.testing.assert_close(view.apply(ws), ws)
    with torch.no_grad():
        view.motion.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, -5, 0]]))
    moved = view.apply(ws)
    torch.testing.assert_close(numbers(G, moved) - numbers(G, ws), 0.1 * view.motion.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 1:], ws[:, 1:])
    null = torch.linalg.svd(G.style_weight(G.layers[0])).Vh[4:]  # the change is the shortest: nothing without effect
    assert ((moved - ws)[:, 0] @ null.t()).abs().max() < 1e-4


def test_start_continues_a_motion(G):
    ws = G.mapping(torch.randn(2, 16))
    view = View(G, 2)
    with torch.no_grad():
        view.motion.copy_(torch.randn(2, 4))
    moved = view.apply(ws).detach()
    torch.testing.assert_close(without_view(G, moved), ws)
    torch.testing.assert_close(View(G, 2, moved).motion, view.motion, atol=1e-4, rtol=1e-4)


def test_motion_is_found_by_its_gradient(G):
    ws, moved = G.mapping(torch.randn(1, 16)), torch.tensor([[0.0, 0.5, 0.6, -0.4]])
    view = View(G, 1)
    with torch.no_grad():
        view.motion.copy_(moved)
    target = G.synthesis(view.apply(ws)).detach()
    search = Projector(G, target, PixelLoss(), ProjectionOptions(steps=1), start=Start(ws))
    optimizer = torch.optim.Adam([search.view.motion], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (G.synthesis(search.ws()) - target).square().mean().backward()
        optimizer.step()
    found, expected = numbers(G, search.ws()), numbers(G, view.apply(ws))
    found, expected = (t / t[:, :2].norm(dim=1) for t in (found, expected))
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_result_can_be_projected_further(G):
    target = G.synthesis(G.mapping(torch.randn(1, 16))).detach()
    first = project(G, target, PixelLoss(), ProjectionOptions(steps=10, candidates=4))
    assert (first.ws[:, 0] - first.ws[:, 1]).abs().max() > 1e-3
    second = Projector(G, target, PixelLoss(), ProjectionOptions(steps=10), start=Start(first.ws))
    torch.testing.assert_close(second.best.ws, first.ws, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second.best.distance, first.distance, atol=1e-5, rtol=1e-3)


def test_models_whose_latents_do_not_move_the_image():
    G = build_generator(StyleGAN2Config(8, 8, channel_base=64, channel_max=8, z_dim=8, w_dim=8)).requires_grad_(False)
    projector = Projector(G, torch.zeros(1, 3, 8, 8), PixelLoss(), ProjectionOptions(steps=1, candidates=0))
    assert projector.view is None and len(projector.parameters) == 1 + len(G.noise_layers)
