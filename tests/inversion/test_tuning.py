"""Pivotal tuning: smaller distances, an unchanged original model, and a small file of differences."""

from pathlib import Path

import torch

from stylegan_cli.detectors.distances import PixelLoss
from stylegan_cli.inversion.projector import ProjectionOptions, project
from stylegan_cli.inversion.tuning import tune
from stylegan_cli.sampling.tuned import apply_tuned, save_tuned
from stylegan_cli.snapshot import fingerprint, load_snapshot

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


def test_tuning(tmp_path, monkeypatch):
    G, loss = load_snapshot(MODEL).G, PixelLoss()
    torch.manual_seed(0)
    targets = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4) * 2 - 1, (32, 32), mode="nearest")
    projected = project(G, targets, loss, ProjectionOptions(steps=3, candidates=2))
    before = fingerprint(G)
    tuned, distance, done = tune(G, targets, projected, loss, 12, batch=1)
    assert (distance < projected.distance).all() and fingerprint(G) == before and done == 12
    assert not any(p.requires_grad for p in tuned.parameters())
    again = loss.distance(loss.features(tuned.synthesis(projected.ws, noise=projected.noise)), loss.features(targets))
    assert torch.allclose(again, distance, rtol=1e-4)
    changed = [name for name, t in tuned.state_dict().items() if not torch.equal(t, G.state_dict()[name])]
    assert changed and all(name.startswith("synthesis.") and "noise_const" not in name for name in changed)

    path = save_tuned(tmp_path, G, tuned)
    loaded = apply_tuned(G, path)
    stored = loss.distance(loss.features(loaded.synthesis(projected.ws, noise=projected.noise)), loss.features(targets))
    assert torch.allclose(stored, distance, rtol=1e-3)
    weights = sum(t.numel() for name, t in G.state_dict().items() if name.startswith("synthesis."))
    assert path.stat().st_size < 2.2 * weights + 20_000

    _, batched_distance, _ = tune(G, targets, projected, loss, 12, batch=2)  # the same up to rounding
    assert torch.allclose(batched_distance, distance, rtol=0.05)

    real, calls = PixelLoss.distance, []

    def interrupted(self, a, b):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, a, b)

    monkeypatch.setattr(PixelLoss, "distance", interrupted)
    partially_tuned, distance, done = tune(G, targets, projected, loss, 12, batch=2)
    assert (distance < projected.distance).all() and fingerprint(partially_tuned) != before and done == 2


def test_masked_pixels_do_not_affect_tuning():
    """Targets that differ only where the mask is black lead to the same weights; the loss has a squared error term."""
    G, loss = load_snapshot(MODEL).G, PixelLoss()
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    pivot = project(G, torch.zeros(1, 3, 32, 32), loss, ProjectionOptions(steps=1, candidates=0), mask)
    targets = [torch.where(mask.bool(), torch.zeros(()), torch.full((1, 3, 32, 32), value)) for value in (-1.0, 1.0)]
    a, b = (tune(G, target, pivot, loss, 3, mask)[0] for target in targets)
    assert all(torch.allclose(x, b.state_dict()[name], atol=1e-5) for name, x in a.state_dict().items())

    class ZeroLoss(PixelLoss):
        def distance(self, a, b):
            return super().distance(a, b) * 0

    tuned, *_ = tune(G, targets[0], pivot, ZeroLoss(), 3)

    def squared_error(net):
        return (net.synthesis(pivot.ws, noise=pivot.noise) - targets[0]).square().mean()

    assert squared_error(tuned) < squared_error(G)
