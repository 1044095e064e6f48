"""ADA prevents overfitting: on 200 images p rises, and the model is closer to unseen images than without ADA.

Twenty minutes on a quiet core: pytest -m slow tests/training/test_overfit.py -s
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_uint8
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling.latents import latents_from_seeds
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions


def features(images):  # uint8 [N, C, H, W] -> [N, 256] float64
    """Colors and edges at 8 x 8."""
    x = images.double() / 255
    gray = x.mean(1, keepdim=True)
    edges = F.pad(gray.diff(dim=3).abs(), [0, 1]) + F.pad(gray.diff(dim=2).abs(), [0, 0, 0, 1])
    return torch.cat([F.adaptive_avg_pool2d(x, 8), 4 * F.adaptive_avg_pool2d(edges, 8)], 1).flatten(1)


def frechet(a, b):  # [N, D], [M, D]
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2)."""
    s1, s2 = torch.cov(a.t()), torch.cov(b.t())
    root = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + s1.trace() + s2.trace() - 2 * root)


def test_frechet_distance():
    torch.manual_seed(0)
    x = torch.randn(4000, 5).double()
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, 2 * x + 3) == pytest.approx(5 * 9 + 5 * 1, rel=0.05)


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """200 images of the bundled dataset, and features of 2,000 others."""
    images = open_dataset(None, size=(16, 16)).images(range(2200))
    folder = tmp_path_factory.mktemp("few")
    for i, image in enumerate(images[:200]):
        Image.fromarray(np.moveaxis(image.numpy(), 0, 2)).save(folder / f"{i:03d}.png")
    return folder, features(images[200:])


def distance_after(folder, data, others, aug, kimg=120):
    config = make_train_config(
        *("demo-stylegan2", open_dataset(data).spec),
        **{"channel_base": 256, "gamma": 0.2, "batch": 64, "mbstd_group": 16, "lr": 0.004},
        **{"aug": aug, "ada_kimg": 40.0, "kimg": float(kimg), "snap": kimg / 6},
    )
    run = folder / aug
    run.mkdir()
    train(config, run, "cpu", options=RunOptions(quiet=True))
    G = load_snapshot(latest_snapshot(run)).G
    with torch.no_grad():
        fakes = torch.cat([to_uint8(G(z)) for z in latents_from_seeds(range(2000), 128).split(100)])
    p = [json.loads(line).get("augment/p", 0) for line in (run / "stats.jsonl").read_text().splitlines()]
    return frechet(features(fakes), others), max(p)


@pytest.mark.slow
def test_ada_is_closer_to_unseen_images(few_images, tmp_path):
    data, others = few_images
    (ada, p), (plain, _) = (distance_after(tmp_path, data, others, aug) for aug in ("ada", "noaug"))
    print(f"distance to unseen images: ada {ada:.4f} with p up to {p:.3f}, noaug {plain:.4f}")
    assert p > 0.1 and ada < plain
