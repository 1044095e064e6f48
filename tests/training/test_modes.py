"""Mode regularization (MRGAN): its terms, the encoder that a run leaves, resuming, ranks."""

import dataclasses
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_uint8
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.models.encoders.passes import encode
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling.encoders import ENCODER_FILE, RUN_ENCODER, find_encoder, load_encoder
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import encoding
from stylegan_cli.training.recipes.fitting import split
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_state

SCRIPT = Path(__file__).parent / "_mode_ranks.py"


def test_the_terms(make_config, make_trainer, monkeypatch):
    """The weighted mean square of the pixels, and the generator's loss of reconstructions, for G and for E."""
    monkeypatch.setattr(encoding, "MODE_PIXELS", 3.0)
    monkeypatch.setattr(encoding, "MODE_REALISM", 0.5)
    recipe = make_trainer(make_config(mode_weight=2.0)).recipe
    batch, objective = recipe.next_batch(), recipe.objective
    z = recipe.E(batch.images)[:, 0]
    images = objective._synthesize(recipe.G.mapping(z), batch, "modes")
    pixels = (images - batch.images).square().flatten(1).mean(1)
    realism = torch.nn.functional.softplus(-recipe.D(images))[:, 0]
    assert objective.mode_terms(batch).item() == pytest.approx(2 * (3 * pixels + 0.5 * realism).sum().item(), rel=1e-5)
    objective.means.take()
    whole = objective.generator_main(batch)
    means = objective.means.take()
    expected = 8 * (means["loss/G"] + 2 * (3 * means["loss/E pixels"] + 0.5 * means["loss/E"]))
    assert whole.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["logistic", "wgan"])
def test_both_networks_learn_from_the_terms(make_config, make_trainer, loss):
    options = {"gp_weight": 10.0, "gamma": 0.0} if loss == "wgan" else {}
    engine = make_trainer(make_config(mode_weight=1.0, loss=loss, pl_weight=0, **options))
    recipe = engine.recipe
    before = {name: {k: x.clone() for k, x in recipe.networks[name].state_dict().items()} for name in ("E", "G")}
    engine.step()
    for name, state in before.items():
        assert any(not torch.equal(x, recipe.networks[name].state_dict()[k]) for k, x in state.items())
    assert [phase.name for phase in recipe.phases][-1] == "E"
    objective, batch = recipe.objective, recipe.next_batch()
    for network in (recipe.G, recipe.E):
        network.requires_grad_(True)
    parameters = [*recipe.E.parameters(), *recipe.G.mapping.parameters()]
    gradients = torch.autograd.grad(objective.mode_terms(batch), parameters)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_reconstructions_improve(make_config, make_trainer):
    engine = make_trainer(make_config(mode_weight=1.0, pl_weight=0, lr=0.01))
    engine.step()
    first = engine.means.take()["loss/E pixels"]
    for _ in range(80):
        engine.step()
    engine.means.take()
    engine.step()
    assert engine.means.take()["loss/E pixels"] < 0.6 * first


def test_it_changes_nothing_but_its_terms(make_config, make_trainer):
    """The same initial weights, images and random numbers as without it, and so the same other losses."""
    plain, regularized = (make_trainer(make_config(mode_weight=w)) for w in (0.0, 1.0))
    for _ in range(2):
        batches = [engine.recipe.next_batch() for engine in (plain, regularized)]
    assert torch.equal(*(batch.images for batch in batches)) and torch.equal(*(batch.index for batch in batches))
    for name in ("discriminator_main", "discriminator_penalties", "generator_path_length"):
        values = [getattr(e.recipe.objective, name)(b) for e, b in zip((plain, regularized), batches, strict=True)]
        assert torch.equal(*values) and values[0] != 0, name
    own, whole = (e.recipe.objective.generator_main(b) for e, b in zip((plain, regularized), batches, strict=True))
    terms = regularized.recipe.objective.mode_terms(batches[1])
    assert (whole - terms).item() == pytest.approx(own.item(), rel=1e-5) and terms > 0.1 * own
    assert set(regularized.stateful) - set(plain.stateful) == {"E", "E_ema", "optimizer.E"}
    plain.step()
    assert not any("E" in name.split("/")[-1].split() for name in plain.means.take())


def test_images_that_are_held_out(make_config, make_trainer, rgb_set):
    """In each epoch the same tenth, mirrored or not; their terms are 0, and nothing is learned from them."""
    recipe = make_trainer(make_config(mode_weight=1.0)).recipe
    dataset, seen = open_dataset(rgb_set), []
    held_out = dataset.images(recipe.held_out).float() / 127.5 - 1
    assert len(recipe.held_out) == 3
    for _ in range(8):  # two epochs
        batch = recipe.next_batch()
        same = [any(torch.equal(x, y) or torch.equal(x, y.flip(2)) for y in held_out) for x in batch.images]
        assert batch.held_out.tolist() == same
        seen += [batch] if 0 < sum(same) < 8 else []
    batch = dataclasses.replace(seen[0], images=seen[0].images.requires_grad_(True))
    (gradient,) = torch.autograd.grad(recipe.objective.mode_terms(batch), batch.images)
    assert torch.equal(gradient.abs().sum((1, 2, 3)) == 0, batch.held_out)
    every = dataclasses.replace(batch, held_out=torch.ones(8, dtype=torch.bool))
    recipe.means.take()
    assert recipe.objective.mode_terms(every) == 0 and "loss/E" not in recipe.means.take()
    assert all(part.held_out.shape == (4,) for part in batch.split(4)) and batch.head(3).held_out.shape == (3,)


def test_a_resumed_run_ends_with_the_same_bits(train_run, make_config):
    whole, _ = train_run(name="whole", kimg=0.048, mode_weight=1.0)
    folder, _ = train_run(name="half", kimg=0.024, mode_weight=1.0)
    train(
        make_config(kimg=0.048, snap=0.024, aug="ada", mode_weight=1.0), folder, "cpu", options=RunOptions(quiet=True)
    )
    a, b = (read_state(list_states(x)[0])[0] for x in (whole, folder))
    assert {"E", "E_ema", "optimizer.E"} <= a.keys()
    for part in ("G", "E", "E_ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    own, other = (load_file(x / RUN_ENCODER) for x in (whole, folder))
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    own, other = (ENCODER_FILE.read_info(x / RUN_ENCODER) for x in (whole, folder))
    assert own.held_out == other.held_out and own.model == other.model


def test_the_encoder_of_a_run(train_run):
    folder, config = train_run(mode_weight=1.0)
    snapshot = load_snapshot(latest_snapshot(folder))
    path, G = folder / RUN_ENCODER, snapshot.G
    info = ENCODER_FILE.read_info(path)
    assert (info.model, info.encoder.space, info.kimg) == (snapshot.fingerprint, "z", 0.048)
    assert info.owner["run"] == snapshot.info.run
    runs = folder.parent / "runs"
    runs.mkdir()
    folder.rename(runs / "00000-rgb-auto")
    path = runs / "00000-rgb-auto" / RUN_ENCODER
    assert find_encoder(None, runs, snapshot.fingerprint) == path == find_encoder(path.parent, runs, "any")
    with pytest.raises(SganError, match="has an encoder for this model"):
        find_encoder(None, runs, "0123456789abcdef")
    encoder = load_encoder(path, G, snapshot.fingerprint)
    images = open_dataset(config.data.path).images(range(3)).float() / 127.5 - 1
    ws = encode(encoder.network, G, images)
    z = encoder.network.E(images)[:, 0]
    assert ws.shape == (3, G.num_ws, 8) and torch.equal(ws, G.mapping(z))
    held_out, _ = split(config.seed, 32, 3)
    images = open_dataset(config.data.path).images(held_out)
    with torch.no_grad():
        found = to_uint8(G.synthesis(encode(encoder.network, G, images.float() / 127.5 - 1)))
    errors = (images.double() - found.double()).square().mean((1, 2, 3))
    psnr = (20 * math.log10(255) - 10 * errors.log10()).mean().item()
    assert info.held_out == {"images": 3.0, "psnr": pytest.approx(psnr, abs=0.01)}
    lines = [json.loads(line) for line in (path.parent / "stats.jsonl").read_text().splitlines()]
    measured = [line["held_out/psnr"] for line in lines if "held_out/psnr" in line]
    assert len(measured) == 3 and measured[-1] == pytest.approx(psnr, abs=0.01) and len(set(measured)) == 3
    assert (path.parent / "log.txt").read_text().count(f"held-out images: PSNR {psnr:.2f} dB") == 1
    with pytest.raises(SganError, match="belongs to the model"):
        load_encoder(path, G, "0123456789abcdef")


def test_two_ranks_are_one(rgb_set, tmp_path):
    command = [sys.executable, str(SCRIPT), str(rgb_set), str(tmp_path / "2.pt"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    runpy.run_path(str(SCRIPT))["work"](str(rgb_set), str(tmp_path / "1.pt"), 1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    one, two = (torch.load(tmp_path / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    assert one.keys() == two.keys() and len(one) > 20
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "hat"}, "cannot be combined with --cond"),
        ({"info": 3}, "cannot be combined with --info"),
    ],
)
def test_classes_are_refused(make_config, options, message):
    with pytest.raises(MisuseError, match=message):
        make_config(mode_weight=1.0, **options)


def test_growing_is_refused(rgb_set):
    with pytest.raises(MisuseError, match="cannot be combined with growing"):
        make_train_config("demo-stylegan", open_dataset(rgb_set).spec, mode_weight=1.0)
