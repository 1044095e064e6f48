"""The image classifier: what it learns, reproducibility, caching."""

import copy
import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.detectors.image_classifier import ImageClassifier, Recognition, prepare
from stylegan_cli.errors import SganError
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes import classifier as recipe
from stylegan_cli.training.recipes.classifier import (
    ClassifierRecipe,
    EpochSampler,
    choose_attributes,
    open_classifier,
    train_classifier,
)
from stylegan_cli.training.state import gather

N = 120
SIDES, TONES = ("left", "right"), ("dark", "light", "mid")
GENERATOR = StyleGAN2Config(16, 16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Images with one half brighter than the other, on three backgrounds; other attributes are not visible."""
    rng = np.random.default_rng(0)
    side, tone = rng.integers(0, 2, N), rng.integers(0, 3, N)
    path = tmp_path_factory.mktemp("classifier") / "halves.zip"
    with zipfile.ZipFile(path, "w") as z:
        for i in range(N):
            pixels = rng.integers(0, 30, (16, 16, 3)) + np.array([20, 180, 100])[tone[i]]
            pixels[:, slice(0, 8) if side[i] == 0 else slice(8, 16), 0] += 40
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            z.writestr(f"{i:04d}.png", buffer.getvalue())
        attributes = {"side": [SIDES[s] for s in side], "tone": [TONES[t] for t in tone]}
        attributes |= {"name": [f"p{i}" for i in range(N)], "style": ["plain"] * N}
        attributes |= {"luck": ["good" if x < 0.5 else "bad" for x in rng.random(N)]}
        z.writestr("dataset.json", json.dumps({"labels": None, "attributes": attributes}))
    return open_dataset(path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_learns_visible_attributes(dataset):
    classifier = train_classifier(dataset, ["side", "tone", "luck"], steps=40)
    assert classifier.attributes == {"side": SIDES, "tone": TONES, "luck": ("bad", "good")}
    assert classifier.recognition["side"].skill > 0.8 and classifier.recognition["tone"].skill > 0.8
    assert classifier.recognition["luck"].skill < 0.6
    predictions = classifier.classify(dataset.images(range(N)))
    sides = torch.tensor([SIDES.index(s) for s in dataset.attributes["side"]])
    assert (predictions["side"].argmax(1) == sides).double().mean() > 0.95
    assert torch.allclose(predictions["tone"].exp().sum(1), torch.ones(N, dtype=torch.float64), atol=1e-5)


def test_training_is_bit_exact_and_leaves_the_global_generator_alone(dataset):
    state = torch.get_rng_state()
    a, b = (train_classifier(dataset, ["side"], steps=3).state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(torch.get_rng_state(), state)
    c = train_classifier(dataset, ["side"], seed=1, steps=3).state_dict()
    assert not torch.equal(a["body.0.weight"], c["body.0.weight"])


def test_held_out_images_are_not_used_for_training(dataset, monkeypatch):
    seen = []
    fit = recipe.fit_classifier

    def spy(classifier, x, *rest):
        seen.append(x)
        fit(classifier, x, *rest)

    monkeypatch.setattr(recipe, "fit_classifier", spy)
    train_classifier(dataset, ["side"], indices=range(0, N, 2), steps=1)
    assert len(seen[0]) == N // 2 - N // 20
    rows = {x.numpy().tobytes() for x in seen[0]}
    assert rows < {x.numpy().tobytes() for x in dataset.images(range(0, N, 2))}


def test_every_image_is_shown_once_per_epoch():
    sampler = EpochSampler(100, seed=0)
    rows, index = (torch.cat(parts) for parts in zip(*(sampler.next(64) for _ in range(5)), strict=True))
    assert index.tolist() == list(range(320))
    for k in range(3):
        assert sorted(rows[100 * k : 100 * (k + 1)].tolist()) == list(range(100))


def test_a_restored_sampler_continues():
    other, sampler = EpochSampler(10, seed=3), EpochSampler(10, seed=3)  # a batch spans epochs
    sampler.next(25)
    other.load_state_dict(sampler.state_dict())
    assert torch.equal(other.next(25)[0], sampler.next(25)[0])


def test_a_restored_engine_continues_bit_exactly(dataset):
    """All state of the recipe is in the parts that it declares."""
    x = dataset.images(range(N))
    targets = torch.tensor([[SIDES.index(s)] for s in dataset.attributes["side"]])

    def make():
        torch.manual_seed(0)
        network = ImageClassifier({"side": SIDES}, 3, fine=True)
        return Engine(ClassifierRecipe(network, x, targets, 0, 9))

    def run(engine, steps):
        torch.manual_seed(1)  # for dropout
        for _ in range(steps):
            engine.step()
        return engine.recipe.classifier.state_dict()

    engine, other = make(), make()
    run(engine, 4)
    state = copy.deepcopy(gather(engine.stateful))
    assert state.keys() == {"classifier", "optimizer.classifier", "rate", "data", "guard", "clock"}
    run(other, 1)
    other.restore(state)
    expected, actual = run(engine, 4), run(other, 4)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_a_non_finite_batch_is_skipped(dataset):
    torch.manual_seed(0)
    network = ImageClassifier({"side": SIDES}, 3, fine=True)
    engine = Engine(ClassifierRecipe(network, dataset.images(range(N)), torch.zeros(N, 1, dtype=torch.int64), 0, 9))
    engine.step()
    good = engine.recipe.next_batch
    engine.recipe.next_batch = lambda: dataclasses.replace(good(), images=torch.full((64, 3, 16, 16), torch.nan))
    before = {name: p.clone() for name, p in network.named_parameters()}
    engine.step()
    assert engine.guard.streak() == 1
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())


def test_large_images_are_downscaled():
    x = prepare(torch.full((2, 3, 256, 128), 255, dtype=torch.uint8))
    assert x.shape == (2, 3, 64, 32) and (x == 1).all()
    assert prepare(torch.zeros(1, 4, 24, 48, dtype=torch.uint8)).shape == (1, 4, 24, 48)


def test_it_is_cached(dataset, cache, monkeypatch):
    first = open_classifier(dataset, GENERATOR, steps=2)
    (file,) = (cache / "classifiers").glob("*.safetensors")
    assert set(first.attributes) == {"side", "tone", "luck"}, "no names and no constants"
    trained = []
    monkeypatch.setattr(recipe, "train_classifier", lambda *a, **k: trained.append(1) or first)
    cached = open_classifier(dataset, GENERATOR, steps=2)
    assert not trained and cached.recognition == first.recognition and cached.attributes == first.attributes
    images = dataset.images(range(9))
    assert all(torch.equal(cached.classify(images)[name], logits) for name, logits in first.classify(images).items())
    content = file.read_bytes()
    changed = bytearray(content)
    changed[-5] ^= 1
    for damaged in (content[:-9], bytes(changed), b"", b"{}" * 20):
        file.write_bytes(damaged)
        open_classifier(dataset, GENERATOR, steps=2)
        assert len(file.read_bytes()) == len(content)  # the order of the header's entries varies
    assert len(trained) == 4


def test_other_settings_are_cached_separately(dataset, cache):
    for steps in (1, 2):
        open_classifier(dataset, GENERATOR, steps=steps)
    assert len(list((cache / "classifiers").glob("*.safetensors"))) == 2


def test_attributes_that_cannot_be_learned(dataset, cache, rgba_set):
    with pytest.raises(SganError, match="no attribute 'tune'") as e:
        open_classifier(dataset, GENERATOR, ["side", "tune"])
    assert e.value.hint == "Did you mean tone?"
    with pytest.raises(SganError, match="no attribute 'name'"):
        open_classifier(dataset, GENERATOR, ["name"])
    with pytest.raises(SganError, match="differ from the model's in size"):
        open_classifier(dataset, StyleGAN2Config(32, 32))
    with pytest.raises(SganError, match="differ from the model's in size or channels"):
        open_classifier(open_dataset(rgba_set), StyleGAN2Config(24, 48))
    assert choose_attributes(open_dataset(rgba_set)) == ["hat"]


def test_a_dataset_without_attributes(tmp_path):
    for i in range(20):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / f"{i}.png")
    with pytest.raises(SganError, match="No attribute of the images") as e:
        choose_attributes(open_dataset(tmp_path))
    assert "--csv" in e.value.hint


def test_skill():
    assert Recognition(0.5, 0.5).skill == 0 and Recognition(1, 0.5).skill == 1 and Recognition(0.75, 0.5).skill == 0.5
