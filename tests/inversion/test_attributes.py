"""Directions from labels: on a model whose attributes are known, and on the one that comes with the package."""

import dataclasses

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
from stylegan_cli.runs import PACKAGED_MODEL
from stylegan_cli.sampling import counter
from stylegan_cli.snapshot import fingerprint, load_snapshot
from stylegan_cli.training.recipes.classifier import train_classifier


def small_model():
    torch.manual_seed(0)
    config = StyleGAN2Config(16, 16, z_dim=12, w_dim=12, channel_base=64, channel_max=8, mapping_layers=1)
    return build_generator(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def G():
    return small_model()


def label(name, scores, *cuts, values="abcd"):
    """A value of an attribute for each seed, by where its score lies among the cuts."""
    place = torch.bucketize(scores, torch.tensor(cuts, dtype=scores.dtype))
    return SeedLabels(name, tuple(values[: len(cuts) + 1]), one_hot(place, len(cuts) + 1).double())


@pytest.fixture(scope="module")
def plane(G):
    """1500 seeds' w in deviations from its mean, and two directions in W with an acute angle."""
    w = sample_w(G, range(1500))
    torch.manual_seed(1)
    a, b = normalize(torch.randn(2, 12, dtype=torch.float64), dim=1)
    return w - w.mean(0), normalize(a + b, dim=0), b


def test_a_known_attribute_moves_and_its_confound_stays(G, plane):
    w, a, b = plane
    labels = [label("hat", w @ a, 0.3), label("age", w @ b, -0.2, 0.4)]
    assert torch.corrcoef(torch.stack([w @ a, w @ b]))[0, 1] > 0.3
    alone = find_from_table(G, range(1500), labels[:1], [0, 1], 1500)
    both = find_from_table(G, range(1500), labels, [0, 1], 1500)
    assert alone.names == ["hat=b"] and both.names == ["hat=b", "age=a", "age=b", "age=c"]
    for found in (alone, both):
        assert (found.vectors[0].double() @ a) > 0.2, "towards the value"
    assert (alone.vectors[0].double() @ b).abs() > 0.3
    assert (both.vectors[0].double() @ b).abs() < 0.05
    assert both.figures["auc"][0] > 0.97 and both.figures["auc"][2] < 0.9, "what lies in the middle is not linear"
    assert both.figures["share"][0] == pytest.approx((w @ a > 0.3).double().mean().item())
    assert torch.allclose(both.scales.double(), (w @ both.vectors.double().T).std(0))


def test_two_names_of_one_thing_do_not_undo_each_other(G, plane):
    w, a, b = plane
    hat = label("hat", w @ a, 0.3)
    cap = dataclasses.replace(hat, name="cap")
    alone = find_from_table(G, range(1500), [hat], [0], 1500)
    found = find_from_table(G, range(1500), [hat, cap], [0], 1500)
    for vector in found.vectors:
        assert torch.allclose(vector, alone.vectors[0], atol=1e-4)


def test_what_is_wanted_and_what_is_rare(G, plane):
    w, a, b = plane
    labels = [label("hat", w @ a, 0.3), label("age", w @ b, -0.2, 3.5)]
    found = find_from_table(G, range(1500), labels, [0], 1500)
    assert found.names == ["hat=b", "age=a", "age=b"] and list(found.settings["left_out"]) == ["age=c"]
    some = find_from_table(G, range(1500), labels, [0], 1500, ["age"])
    assert some.names == found.names[1:] and torch.equal(some.vectors, found.vectors[1:])
    assert some.settings["values"] == [["age", "a"], ["age", "b"]]
    with pytest.raises(SganError, match="No value"):
        find_from_table(G, range(1500), [label("hat", w @ a, 9.0)], [0], 1500)


def test_few_seeds(G, plane):
    """Fewer than w has dimensions: nothing breaks, and it is still the right side."""
    w, a, _ = plane
    labels = [label("hat", (w @ a)[:30], 0.0)]
    found = find_from_table(G, range(30), labels, [0], 1500)
    assert (found.vectors[0].double() @ a) > 0


class Eye:
    """Stands in for a classifier: how bright the left and the right half of an image are."""

    attributes = {"left": ("dark", "light", "never"), "right": ("dark", "light")}

    def __init__(self, **skill):
        self.recognition = {name: Recognition(skill.get(name, 1.0), 0.5) for name in self.attributes}

    def classify(self, images):
        halves = images.double().mean((1, 2)).unflatten(1, (2, -1)).mean(2) / 255 - 0.55  # [N, 2]
        odds = [torch.stack([-x * 50, x * 50], 1) for x in halves.unbind(1)]
        odds[0] = torch.cat([odds[0], torch.full((len(images), 1), -60.0)], 1)
        return {name: x.log_softmax(1) for name, x in zip(self.attributes, odds)}


def test_directions_from_images(G):
    found = find_from_images(G, Eye(), range(G.num_ws), 1500)
    assert "left=light" in found.names and "left=dark" in found.names
    assert "left=never" in found.settings["left_out"] and found.method == "labels"
    assert min(found.figures["moved"]) >= attributes.MOVED and found.model == fingerprint(G)
    assert {len(values) for values in found.figures.values()} == {len(found)}
    ws = to_all_layers(G, sample_w(G, range(9000, 9050)))
    k = found.names.index("left=light")
    before, after = (classify_latents(G, x, Eye())["left"] for x in (ws, found.move(ws, k, found.strength)))
    assert (log_odds(after, 1) > log_odds(before, 1)).double().mean() > 0.75
    again = find_from_images(G, Eye(), range(G.num_ws), 1500)
    assert torch.equal(found.vectors, again.vectors) and torch.equal(found.scales, again.scales)
    assert found.figures == again.figures and found.settings == again.settings


def test_what_is_not_recognized_gives_no_direction(G):
    found = find_from_images(G, Eye(right=0.5), [0, 1], 600)
    assert all(name.startswith("left") for name in found.names) and found.layers == [0, 1]
    assert found.settings["left_out"]["right"] == "not recognized on real images"
    with pytest.raises(SganError, match="No value"):
        find_from_images(G, Eye(right=0.5), range(G.num_ws), 600, ["right"])


def test_what_does_not_move_is_left_out(G, monkeypatch):
    monkeypatch.setattr(attributes, "MOVED", 1.01)
    with pytest.raises(SganError, match="moves 101%"):
        find_from_images(G, Eye(), range(G.num_ws), 300)


def test_trying_counts(G, monkeypatch):
    """Against a classifier that says what it is told to."""
    names = ("no", "yes")
    before = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.2, 0.8]]).double().log()
    after = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.7, 0.3]]).double().log()
    told = iter([{"hat": before, "fur": before}, {"hat": after, "fur": before}])
    monkeypatch.setattr("stylegan_cli.inversion.evaluate_directions.classify_latents", lambda *a: next(told))
    found = find_from_table(G, range(4), [SeedLabels("hat", names, before.exp())], [0], 50)
    eye = Eye()
    eye.attributes = {"hat": names, "fur": names}
    figures = evaluate_directions(G, found, eye, torch.zeros(4, G.num_ws, 12), 2.0)
    assert figures == {"moved": [2 / 3], "reached": [1 / 3], "changed": [0.5], "kept": [1.0]}


def test_log_odds_of_what_is_nearly_sure():
    logs = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64).log_softmax(1)
    assert log_odds(logs, 0).item() == pytest.approx(40 - torch.tensor(2.0).log().item())
    assert log_odds(logs, 1).item() == pytest.approx(-40)


@pytest.fixture(scope="module")
def critters():
    """The model and the drawings that come with the package."""
    return load_snapshot(PACKAGED_MODEL).G, open_dataset(None, size=(32, 32))


def test_the_model_that_comes_along(critters, monkeypatch):
    """In small what benchmarks/measure_editing.py measures: found with one half of the drawings, judged with the other
    half by another classifier, on 100 other seeds, against random directions of the same length."""
    G, drawings = critters
    monkeypatch.setattr(attributes, "_TRIED", 60)
    names, halves = ["backgroundColor", "bodyVariant"], [range(half, len(drawings), 2) for half in (0, 1)]
    classifier, judge = (
        train_classifier(drawings, names, indices=half, seed=seed, steps=40) for seed, half in enumerate(halves)
    )
    assert all(r.skill > 0.8 for c in (classifier, judge) for r in c.recognition.values())
    found = find_from_images(G, classifier, range(G.num_ws), 1200, ["bodyVariant"])
    best = found.only([max(range(len(found)), key=lambda k: found.figures["reached"][k])])
    ws = to_all_layers(G, sample_w(G, range(10**6, 10**6 + 100)))
    (moved,), (reached,), (changed,), (kept,) = evaluate_directions(G, best, judge, ws, best.strength).values()
    assert moved >= 0.8 and reached >= 0.5 and changed >= 0.5
    vectors = unit_vectors(counter.normal(0, "test.direction", torch.arange(4), (G.config.w_dim,)))
    random = [dataclasses.replace(best, vectors=vector[None]) for vector in vectors]
    assert kept > sum(evaluate_directions(G, one, judge, ws, best.strength)["kept"][0] for one in random) / 4
