"""Fitting of segmenters: both methods, sparse annotations, frequencies of classes, images held out."""

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.inversion import segmentation
from stylegan_cli.inversion.segmentation import UNKNOWN, Example, Overlap, Samples, fit, hold_out, propagate
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling.segmenter import features_at

SIZE = 16
PIXELS = SIZE * SIZE


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    config = StyleGAN2Config(SIZE, SIZE, z_dim=8, w_dim=8, channel_base=128, channel_max=8)
    return build_generator(config).requires_grad_(False)


@pytest.fixture(scope="module")
def examples(G):
    """Images whose classes are a function of their features: 2 where one channel is large, 1 where another is."""
    ws = torch.randn(6, G.num_ws, 8, generator=torch.Generator().manual_seed(1))
    found = features_at(G.synthesis, ws, torch.arange(PIXELS).expand(6, -1), (SIZE, SIZE))
    a, b = found[..., 3], found[..., -2]
    labels = torch.where(a > a.quantile(0.9), 2, (b > b.median()).long())
    return [Example(w, y.reshape(SIZE, SIZE)) for w, y in zip(ws.split(1), labels, strict=True)]


def sparse(example, per_class, seed=0):
    flat = example.labels.flatten()
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(seed))
    kept = torch.full_like(flat, UNKNOWN)
    for k in range(3):
        chosen = order[flat[order] == k][:per_class]
        kept[chosen] = k
    return Example(example.ws, kept.reshape(SIZE, SIZE))


def right(G, linear, examples):
    found = [linear.read(G.synthesis, e.ws)[1].argmax(1)[0] == e.labels for e in examples]
    return torch.stack(found).float().mean().item()


def test_linear_classes_are_learned(G, examples):
    samples = segmentation.read_samples(G, examples[:4])
    linear = fit(G, samples, 3)
    nearest = fit(G, samples, 3, "nearest")
    assert right(G, linear, examples[:4]) > max(0.88, right(G, nearest, examples[:4]))
    assert right(G, linear, examples[4:]) > max(0.6, right(G, nearest, examples[4:]))


def test_few_points_and_frequencies(G, examples):
    """Ten points of each class: that a class is small is found in the pixels that are not annotated."""
    few = [sparse(e, 10) for e in examples[:4]]
    samples = segmentation.read_samples(G, few)
    linear = fit(G, samples, 3)
    assert right(G, linear, examples) > 0.75
    alone = [Samples(s.features[s.labels >= 0], s.labels[s.labels >= 0], s.counts[s.labels >= 0]) for s in samples]
    assert right(G, linear, examples) > right(G, fit(G, alone, 3), examples) + 0.02


def test_frequencies():
    """Two Gaussians, one five times as frequent, and a classifier that takes them for equally frequent."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(5000) - 1.5, torch.randn(1000) + 1.5])
    logits = torch.stack([-1.5 * x, 1.5 * x], 1)
    found = segmentation._frequencies(logits, torch.full((6000,), 1 / 6000))
    assert found.sum() == pytest.approx(1) and found[1] == pytest.approx(1 / 6, abs=0.06)
    assert segmentation._frequencies(logits[:5000] - 9 * torch.tensor([0, 1]), torch.full((5000,), 1 / 5000))[1] > 0.03


def test_nearest_is_the_largest_cosine(G, examples):
    samples = segmentation.read_samples(G, examples[:2])
    linear = fit(G, samples, 3, "nearest")
    means = torch.stack([torch.stack([s.features[s.labels == k].mean(0) for s in samples]).mean(0) for k in range(3)])
    for e in examples[2:4]:
        found = features_at(G.synthesis, e.ws, torch.arange(PIXELS)[None], (SIZE, SIZE))[0]
        expected = F.cosine_similarity(found[:, None], means[None], dim=2).argmax(1)
        assert (linear.read(G.synthesis, e.ws)[1].argmax(1).flatten() == expected).float().mean() > 0.99


@pytest.mark.parametrize("method", segmentation.METHODS)
def test_an_absent_class_is_never_predicted(G, examples, method):
    samples = segmentation.read_samples(G, examples[:2])
    logits = fit(G, samples, 5, method).read(G.synthesis, examples[0].ws)[1]
    assert set(logits.argmax(1).unique().tolist()) <= {0, 1, 2} and logits.isfinite().all()


def test_propagate():
    """The three most similar pixels get the class if they are similar enough, and the largest cosine wins."""
    angles = torch.tensor([0.0, 1, 2, 3, 30, 50, 89, 90, 200]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.full((9,), UNKNOWN)
    labels[0], labels[7] = 1, 4
    assert propagate(features, labels, 0.4).tolist() == [1, 1, 1, 1, 4, 4, 4, 4, UNKNOWN]
    assert propagate(features, labels, 0.6).tolist() == [1, 1, 1, 1, UNKNOWN, 4, 4, 4, UNKNOWN]
    labels[5] = 2
    assert propagate(features, labels, 0.4).tolist() == [1, 1, 1, 1, 2, 2, 4, 4, UNKNOWN], (
        "annotated pixels keep their class"
    )


def test_pixels_of_small_classes_are_kept():
    labels = torch.zeros(1000, dtype=torch.int64)
    labels[5], labels[100:400] = 1, UNKNOWN
    chosen, counts = segmentation._choose_pixels(labels, 101, torch.Generator().manual_seed(0))
    assert len(chosen) == len(chosen.unique()) == 101 and 5 in chosen
    for k, total in ((0, 699), (1, 1), (UNKNOWN, 300)):
        assert counts[labels[chosen] == k].sum().item() == pytest.approx(total, rel=1e-4)
    every, counts = segmentation._choose_pixels(labels, 5000, torch.Generator().manual_seed(0))
    assert len(every.unique()) == 1000 and (counts == 1).all()


def test_sampled_pixels_are_enough(G, examples, monkeypatch):
    monkeypatch.setattr(segmentation, "_PIXELS", 100)
    samples = segmentation.read_samples(G, examples[:4])
    assert [len(s.labels) for s in samples] == [100] * 4
    assert right(G, fit(G, samples, 3), examples[:4]) > 0.85


def test_overlap():
    overlap = Overlap(3)
    overlap.add(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, UNKNOWN]))
    assert overlap.values == [0.5, 0.5, None] and overlap.mean == 0.5
    overlap.add(torch.tensor([1, 1]), torch.tensor([1, 1]))
    assert overlap.values == [0.5, 0.75, None]


def test_images_held_out(G, examples):
    """Each is predicted by what was fitted to the others."""
    samples = segmentation.read_samples(G, examples[:3])
    done = []
    overlap = hold_out(G, examples[:3], samples, 3, "linear", progress=lambda *x: done.append(x))
    expected = Overlap(3)
    for i in range(3):
        linear = fit(G, [s for j, s in enumerate(samples) if j != i], 3)
        expected.add(linear.read(G.synthesis, examples[i].ws)[1].argmax(1)[0], examples[i].labels)
    assert overlap.values == expected.values and 0.3 < overlap.mean < 1
    assert done[-1] == ("held out", 3, 3)


def test_many_images_are_held_out_in_groups(G, examples, monkeypatch):
    """Of five images in two groups, 0, 2 and 4 are predicted by what was fitted to 1 and 3, and these by the others."""
    monkeypatch.setattr(segmentation, "_FOLDS", 2)
    samples, expected = segmentation.read_samples(G, examples[:5]), Overlap(3)
    for held, others in (((0, 2, 4), (1, 3)), ((1, 3), (0, 2, 4))):
        linear = fit(G, [samples[i] for i in others], 3, "nearest")
        for i in held:
            expected.add(linear.read(G.synthesis, examples[i].ws)[1].argmax(1)[0], examples[i].labels)
    found = hold_out(G, examples[:5], samples, 3, "nearest")
    assert found.values == expected.values and len(set(found.values)) == 3
