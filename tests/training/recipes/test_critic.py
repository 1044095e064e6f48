"""Fitting attribute critics: what they learn, what they are refused for, and the early images of a run."""

import json
import math
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import image_grid, save_image
from stylegan_cli.errors import SganError
from stylegan_cli.training.recipes import critic as recipe
from stylegan_cli.training.recipes.critic import early_images, fit_critic

N = 160


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A bright left or right half, and in one of 16 images a blue top; `luck` is not visible."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, N)
    path = tmp_path_factory.mktemp("critic") / "halves.zip"
    with zipfile.ZipFile(path, "w") as z:
        for i in range(N):
            pixels = rng.integers(60, 120, (16, 16, 3))
            pixels[:, slice(0, 8) if side[i] == 0 else slice(8, 16)] += 90
            pixels[:4] = [20, 20, 250] if i % 16 == 5 else pixels[:4]
            buffer = BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            z.writestr(f"{i:04d}.png", buffer.getvalue())
        luck = ["good" if x < 0.4 else "bad" for x in rng.random(N)]
        attributes = {"side": ["left" if s == 0 else "right" for s in side], "luck": luck}
        attributes["top"] = ["blue" if i % 16 == 5 else "other" for i in range(N)]
        attributes["rare"] = ["yes" if i < 5 else "no" for i in range(N)]
        z.writestr("dataset.json", json.dumps({"labels": None, "attributes": attributes}))
    return open_dataset(path)


def make_run(folder, data, grids):
    """A run folder with only its settings and grids: kimg -> uint8 [N, C, h, w]."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"data": data}))
    for kimg, images in grids.items():
        scale = max(1, 64 // data["width"])
        save_image(image_grid(images, 4, scale=scale), folder / f"fakes-{kimg:06d}.png")
    return folder


def random_images(n, shape, seed=0):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its early images are bright on the left, like those of the dataset, but greener on the right."""
    early = random_images(16, (3, 16, 16)) // 4 + 60
    early[:, :, :, :8] += 90
    early[:, 1, :, 8:] += 60
    spec = {"height": 16, "width": 16, "channels": 3}
    return make_run(tmp_path_factory.mktemp("runs") / "run", spec, {0: early, 5: early, 100: 255 - early})


def test_it_learns_the_attribute_and_rejects_junk(dataset, run):
    critic = fit_critic(dataset, "side", "left", run, steps=40)
    info = critic.info
    assert info.skill > 0.8 and info.held_out in (N // 10 - 1, N // 10) and info.low < 0 < info.high
    assert (info.attribute, info.value, info.channels, info.height, info.width) == ("side", "left", 3, 16, 16)
    assert info.junk == str(run) and info.junk_rejected == 1 and info.data == dataset.spec
    images = dataset.images(range(N)).float() / 127.5 - 1
    has = torch.tensor([side == "left" for side in dataset.attributes["side"]])
    assert ((critic(images) > 0) == has).double().mean() > 0.9
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = images[has].mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)
    assert (critic(noise) < 0).double().mean() > 0.9 and (critic(blurred) < 0).double().mean() > 0.9


def test_a_rare_value_is_learned_and_held_out(dataset):
    """Of 10 images with it, 3 are held out; always answering no is right for 94 % of the images, and has no skill."""
    info = fit_critic(dataset, "top", "blue", steps=40).info
    assert info.skill > 0.8 and info.held_out == 3 + (N - 10) // 10 and info.low < 0 < info.high


@pytest.mark.parametrize("count", [10, 30, 150])
def test_both_kinds_are_held_out(count, monkeypatch):
    """Also if there are more images than are used: those of the rarer kind are kept."""
    monkeypatch.setattr(recipe, "_IMAGES", 100)
    has = torch.arange(200) < count
    train, test = recipe._split(has, 0)
    used = [torch.cat(kind) for kind in zip(train, test, strict=True)]
    assert [has[kind].float().mean() for kind in used] == [0, 1] and sum(map(len, used)) == 100
    assert len(used[1]) == min(count, 50) and all(
        len(kind) == max(len(u) // 10, 3) for kind, u in zip(test, used, strict=True)
    )
    assert all(len(kind.unique()) == len(kind) for kind in used)


def test_junk_makes_the_difference(dataset, run):
    """Without the run, its early images are taken for the attribute."""
    early = early_images(run, (3, 16, 16)).float() / 127.5 - 1
    without, with_junk = (fit_critic(dataset, "side", "left", junk, steps=40)(early) for junk in (None, run))
    assert with_junk.mean() < without.mean() - 1


def test_fitting_is_bit_exact_and_leaves_the_global_generator_alone(dataset, monkeypatch):
    monkeypatch.setattr(recipe, "MIN_SKILL", -math.inf)
    monkeypatch.setattr(recipe, "_SMOOTHNESS", 0.1)
    state = torch.get_rng_state()
    a, b, c = (fit_critic(dataset, "side", "left", steps=12, seed=seed).classifier.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(a["body.0.weight"], c["body.0.weight"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("luck", "good", "luck=good cannot be recognized"),
        ("sid", "left", "no attribute 'sid'"),
        ("side", "leff", "No image in"),
        ("rare", "yes", "5 of 160 images"),
    ],
)
def test_attributes_that_are_refused(dataset, attribute, value, words):
    with pytest.raises(SganError, match=words) as error:
        fit_critic(dataset, attribute, value, steps=3)
    if attribute == "sid":
        assert error.value.hint == "Did you mean side?"
    if value == "leff":
        assert error.value.hint == "Did you mean left?"


def test_a_dataset_without_attributes(make_set, tmp_path):
    path = make_set(tmp_path / "plain.zip")
    with zipfile.ZipFile(path) as z, zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
        for name in z.namelist():
            if name.endswith(".png"):
                bare.writestr(name, z.read(name))
    with pytest.raises(SganError, match="have no attributes to learn"):
        fit_critic(open_dataset(tmp_path / "bare.zip"), "hat", "tall")


def test_early_images_are_those_of_the_grids(tmp_path):
    first, second, late = (random_images(8, (3, 16, 24), seed) for seed in range(3))
    spec = {"height": 16, "width": 24, "channels": 3}
    run = make_run(tmp_path / "run", spec, {0: first, 4: second, 50: late})
    assert torch.equal(early_images(run, (3, 16, 24)), torch.cat([first, second]))
    short = make_run(tmp_path / "short", spec, {0: first, 1: second, 2: late})
    assert torch.equal(early_images(short, (3, 16, 24)), torch.cat([first, second]))
    assert early_images(run, (3, 8, 12)).shape == (16, 3, 8, 12)


def test_runs_that_are_refused(tmp_path):
    images, spec = random_images(8, (3, 16, 16)), {"height": 16, "width": 16, "channels": 3}
    run = make_run(tmp_path / "run", spec, {0: images})
    for form in ((1, 16, 16), (3, 16, 24)):
        with pytest.raises(SganError, match="differ from the dataset's"):
            early_images(run, form)
    with pytest.raises(SganError, match="is not a run folder"):
        early_images(tmp_path / "missing", (3, 16, 16))
    with pytest.raises(SganError, match="has no grids"):
        early_images(make_run(tmp_path / "empty", spec, {}), (3, 16, 16))
    (run / "fakes-000000.png").write_bytes(b"no image")
    with pytest.raises(SganError, match="Cannot read"):
        early_images(run, (3, 16, 16))
    save_image(images[0, :, :15], run / "fakes-000000.png")
    with pytest.raises(SganError, match="is not a grid"):
        early_images(run, (3, 16, 16))
