"""Directions from labels: of a model with known attributes, and of one of critters."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.detectors.image_classifier import Recognition
from stylegan_cli.errors import SganError
from stylegan_cli.inversion import attributes
from stylegan_cli.inversion.attributes import find_from_images, find_from_table
from stylegan_cli.inversion.directions import sample_w, unit_vectors
from stylegan_cli.inversion.evaluate_directions import classify_latents, evaluate_directions, log_odds, to_all_layers
from stylegan_cli.inversion.seed_labels import SeedLabels
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import fingerprint, load_snapshot
from stylegan_cli.training.recipes.classifier import train_classifier

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters


def small_model():
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, z_dim=12, w_dim=12, channel_base=64, channel_max=8, mapping_layers=1)
    return build_generator(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def G():
    return small_model()


def label(name, scores, *cuts, values="abcd"):
    """Label each seed with a value of an attribute according to its score and the cuts."""
    index = torch.bucketize(scores, torch.tensor(cuts, dtype=scores.dtype))
    return SeedLabels(name, tuple(values[: len(cuts) + 1]), one_hot(index, len(cuts) + 1).double())


@pytest.fixture(scope="module")
def plane(G):
    """Centered w of 1500 seeds, and two directions in W at an acute angle."""
    w = sample_w(G, range(1500))
    torch.manual_seed(1)
    a, b = normalize(torch.randn(2, 12, dtype=torch.float64), dim=1)
    return w - w.mean(0), normalize(a + b, dim=0), b


def test_a_known_attribute_changes_and_a_correlated_one_is_preserved(G, plane):
    w, a, b = plane
    labels = [label("hat", w @ a, 0.3), label("age", w @ b, -0.2, 0.4)]
    assert torch.corrcoef(torch.stack([w @ a, w @ b]))[0, 1] > 0.3
    alone = find_from_table(G, range(1500), labels[:1], [0, 1], 1500)
    both = find_from_table(G, range(1500), labels, [0, 1], 1500)
    assert alone.names == ["hat=b"] and both.names == ["hat=b", "age=a", "age=b", "age=c"]
    for directions in (alone, both):
        assert (directions.vectors[0].double() @ a) > 0.2, "toward the value"
    assert (alone.vectors[0].double() @ b).abs() > 0.3
    assert (both.vectors[0].double() @ b).abs() < 0.05
    assert both.figures["auc"][0] > 0.97 and both.figures["auc"][2] < 0.9, "the middle is not linearly separable"
    assert both.figures["share"][0] == pytest.approx((w @ a > 0.3).double().mean().item())
    assert torch.allclose(both.scales.double(), (w @ both.vectors.double().T).std(0))


def test_equivalent_values_are_not_orthogonalized(G, plane):
    w, a, b = plane
    hat = label("hat", w @ a, 0.3)
    cap = dataclasses.replace(hat, name="cap")
    alone = find_from_table(G, range(1500), [hat], [0], 1500)
    directions = find_from_table(G, range(1500), [hat, cap], [0], 1500)
    for vector in directions.vectors:
        assert torch.allclose(vector, alone.vectors[0], atol=1e-4)


def test_chosen_attributes_and_rare_values(G, plane):
    w, a, b = plane
    labels = [label("hat", w @ a, 0.3), label("age", w @ b, -0.2, 3.5)]
    directions = find_from_table(G, range(1500), labels, [0], 1500)
    assert directions.names == ["hat=b", "age=a", "age=b"] and list(directions.settings["left_out"]) == ["age=c"]
    chosen = find_from_table(G, range(1500), labels, [0], 1500, ["age"])
    assert chosen.names == directions.names[1:] and torch.equal(chosen.vectors, directions.vectors[1:])
    assert chosen.settings["values"] == [["age", "a"], ["age", "b"]]
    with pytest.raises(SganError, match="No value"):
        find_from_table(G, range(1500), [label("hat", w @ a, 9.0)], [0], 1500)


def test_few_seeds(G, plane):
    """Fewer seeds than w has dimensions still give a direction toward the value."""
    w, a, _ = plane
    labels = [label("hat", (w @ a)[:30], 0.0)]
    directions = find_from_table(G, range(30), labels, [0], 1500)
    assert (directions.vectors[0].double() @ a) > 0


class HalvesClassifier:
    """A stand-in for a classifier that labels the brightness of the left and the right half of an image."""

    attributes = {"left": ("dark", "light", "never"), "right": ("dark", "light")}

    def __init__(self, **skill):
        self.recognition = {name: Recognition(skill.get(name, 1.0), 0.5) for name in self.attributes}

    def classify(self, images):
        halves = images.double().mean((1, 2)).unflatten(1, (2, -1)).mean(2) / 255 - 0.55  # [N, 2]
        odds = [torch.stack([-x * 50, x * 50], 1) for x in halves.unbind(1)]
        odds[0] = torch.cat([odds[0], torch.full((len(images), 1), -60.0)], 1)
        return {name: x.log_softmax(1) for name, x in zip(self.attributes, odds)}


def test_directions_from_images(G):
    directions = find_from_images(G, HalvesClassifier(), range(G.num_ws), 1500)
    assert "left=light" in directions.names and "left=dark" in directions.names
    assert "left=never" in directions.settings["left_out"] and directions.method == "labels"
    assert min(directions.figures["moved"]) >= attributes.MIN_MOVED and directions.model == fingerprint(G)
    assert {len(values) for values in directions.figures.values()} == {len(directions)}
    ws = to_all_layers(G, sample_w(G, range(9000, 9050)))
    k = directions.names.index("left=light")
    before, after = (
        classify_latents(G, x, HalvesClassifier())["left"] for x in (ws, directions.move(ws, k, directions.strength))
    )
    assert (log_odds(after, 1) > log_odds(before, 1)).double().mean() > 0.75
    again = find_from_images(G, HalvesClassifier(), range(G.num_ws), 1500)
    assert torch.equal(directions.vectors, again.vectors) and torch.equal(directions.scales, again.scales)
    assert directions.figures == again.figures and directions.settings == again.settings


def test_unrecognized_attributes_give_no_direction(G):
    directions = find_from_images(G, HalvesClassifier(right=0.5), [0, 1], 600)
    assert all(name.startswith("left") for name in directions.names) and directions.layers == [0, 1]
    assert directions.settings["left_out"]["right"] == "not recognized on real images"
    with pytest.raises(SganError, match="No value"):
        find_from_images(G, HalvesClassifier(right=0.5), range(G.num_ws), 600, ["right"])


def test_directions_that_move_few_images_are_left_out(G, monkeypatch):
    monkeypatch.setattr(attributes, "MIN_MOVED", 1.01)
    with pytest.raises(SganError, match="moves 101%"):
        find_from_images(G, HalvesClassifier(), range(G.num_ws), 300)


def test_figures_of_an_evaluation(G, monkeypatch):
    """With predefined results of the classifier."""
    values = ("no", "yes")
    before = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.2, 0.8]]).double().log()
    after = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.7, 0.3]]).double().log()
    results = iter([{"hat": before, "fur": before}, {"hat": after, "fur": before}])
    monkeypatch.setattr("stylegan_cli.inversion.evaluate_directions.classify_latents", lambda *a: next(results))
    directions = find_from_table(G, range(4), [SeedLabels("hat", values, before.exp())], [0], 50)
    classifier = HalvesClassifier()
    classifier.attributes = {"hat": values, "fur": values}
    figures = evaluate_directions(G, directions, classifier, torch.zeros(4, G.num_ws, 12), 2.0)
    assert figures == {"moved": [2 / 3], "reached": [1 / 3], "changed": [0.5], "kept": [1.0]}


def test_log_odds_near_certainty():
    logs = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64).log_softmax(1)
    assert log_odds(logs, 0).item() == pytest.approx(40 - torch.tensor(2.0).log().item())
    assert log_odds(logs, 1).item() == pytest.approx(-40)


@pytest.fixture(scope="module")
def critters():
    """A small StyleGAN2 and its dataset."""
    return load_snapshot(MODEL).G, open_dataset(None, size=(32, 32))


def test_directions_of_a_trained_model(critters, monkeypatch):
    """A small version of benchmarks/measure_editing.py: find directions with a classifier trained on half of the data;
    evaluate them with one trained on the other half, on 100 other seeds, against random directions of equal length."""
    G, dataset = critters
    monkeypatch.setattr(attributes, "_NUM_TEST_SEEDS", 60)
    names, halves = ["backgroundColor", "bodyVariant"], [range(half, len(dataset), 2) for half in (0, 1)]
    classifier, judge = (
        train_classifier(dataset, names, indices=half, seed=seed, steps=40) for seed, half in enumerate(halves)
    )
    assert all(r.skill > 0.8 for c in (classifier, judge) for r in c.recognition.values())
    directions = find_from_images(G, classifier, range(G.num_ws), 1200, ["bodyVariant"])
    best = directions.select([max(range(len(directions)), key=lambda k: directions.figures["reached"][k])])
    ws = to_all_layers(G, sample_w(G, range(10**6, 10**6 + 100)))
    (moved,), (reached,), (changed,), (kept,) = evaluate_directions(G, best, judge, ws, best.strength).values()
    assert moved >= 0.8 and reached >= 0.5 and changed >= 0.5
    vectors = unit_vectors(counter.normal(0, "test.direction", torch.arange(4), (G.config.w_dim,)))
    random = [dataclasses.replace(best, vectors=vector[None]) for vector in vectors]
    assert kept > sum(evaluate_directions(G, one, judge, ws, best.strength)["kept"][0] for one in random) / 4
