"""BiGAN and VAE-GAN: losses against plain definitions, who learns from what, and the encoder that a run leaves."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.errors import MisuseError
from stylegan_cli.models.encoders.passes import encode
from stylegan_cli.sampling import counter
from stylegan_cli.sampling.encoders import RUN_ENCODER, load_encoder
from stylegan_cli.snapshot import load_snapshot
from stylegan_cli.training.choices import OBJECTIVES
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import encoding
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_state


@pytest.fixture
def recipe_of(make_config, make_trainer):
    def make(encoder, **options):
        config = make_config(encoder=encoder, pl_weight=0, **{"mixing_prob": 0.0} | options)
        return make_trainer(config, dtype=torch.float64).recipe

    return make


def z_of(recipe, batch, purpose):
    return counter.normal(recipe.config.seed, f"{purpose}.z", batch.index, (8,)).double()


def fakes_of(recipe, batch, purpose):
    G, z = recipe.G, z_of(recipe, batch, purpose)
    return recipe.objective._synthesize(G.mapping(z), batch, purpose), z


def kept(values, batch):
    return values.flatten()[~batch.held_out].sum()


def test_bigan_against_its_definition(recipe_of):
    """-log D(G(z), z) for G, -log(1 - D(x, E(x))) for E, and both negated for D (Donahue et al. 2017, equation 3)."""
    recipe = recipe_of("bigan")
    batch, D, E = recipe.next_batch(), recipe.D, recipe.E
    assert D.config.c_dim == 8 and recipe.G.config.c_dim == 0
    image, z = fakes_of(recipe, batch, "g")
    expected = -torch.sigmoid(D(image, z)).log().sum()
    assert recipe.objective.generator_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)
    real = D(batch.images, E(batch.images)[:, 0])
    expected = kept(-(1 - torch.sigmoid(real)).log(), batch)
    assert recipe.objective.encoder_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)
    image, z = fakes_of(recipe, batch, "d")
    expected = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(D(image, z))).log()).sum()
    assert recipe.objective.discriminator_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)


def test_objectives_of_pairs_and_without_a_boundary(recipe_of):
    recipe = recipe_of("bigan", loss="relativistic")
    batch, D, E = recipe.next_batch(), recipe.D, recipe.E
    real = D(batch.images, E(batch.images)[:, 0])
    image, z = fakes_of(recipe, batch, "e")
    expected = kept(F.softplus(real - D(image, z)), batch)
    assert recipe.objective.encoder_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)
    recipe = recipe_of("bigan", loss="lsgan")
    batch = recipe.next_batch()
    expected = kept(recipe.D(batch.images, recipe.E(batch.images)[:, 0]).square() / 2, batch)
    assert recipe.objective.encoder_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_divergence():
    mean, log_variance = torch.randn(2, 5, 7, dtype=torch.float64)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(encoding.divergence(mean, log_variance), expected)
    inputs = mean.requires_grad_(True), log_variance.requires_grad_(True)
    assert torch.autograd.gradcheck(encoding.divergence, inputs)
    assert torch.autograd.gradgradcheck(encoding.divergence, inputs)


def test_vaegan_against_its_definition(recipe_of):
    """Larsen et al. 2016, algorithm 1."""
    recipe = recipe_of("vaegan")
    batch, D = recipe.next_batch(), recipe.D
    mean, log_variance = recipe.E(batch.images)[:, 0].split(8, 1)
    epsilon = counter.normal(0, "vae.epsilon", batch.index, (8,)).double()
    z = mean + (log_variance / 2).exp() * epsilon

    def similarity(images):
        real, found = D.features(batch.images)[1], D.features(images)[1]
        return (real - found).square().flatten(1).mean(1) / real.square().flatten(1).mean(1)

    images = recipe.objective._synthesize(recipe.G.mapping(z), batch, "vae")
    prior = encoding.divergence(mean, log_variance)
    expected = kept(encoding.PRIOR * prior + similarity(images), batch)
    assert recipe.objective.encoder_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)
    random, _ = fakes_of(recipe, batch, "g")
    expected = F.softplus(-D(random)).sum() + kept(F.softplus(-D(images))[:, 0], batch)
    expected = expected + encoding.SIMILARITY * kept(similarity(images), batch)
    assert recipe.objective.generator_main(batch).item() == pytest.approx(expected.item(), rel=1e-9)
    random, _ = fakes_of(recipe, batch, "d")
    images = recipe.objective._synthesize(recipe.G.mapping(z), batch, "vae.d")
    expected = F.softplus(-D(batch.images)) + (F.softplus(D(random)) + F.softplus(D(images))) / 2
    assert recipe.objective.discriminator_main(batch).item() == pytest.approx(expected.sum().item(), rel=1e-9)


@pytest.mark.parametrize("encoder", ["bigan", "vaegan"])
def test_who_learns_from_what(recipe_of, encoder):
    """D nothing from the similarity, E nothing from images that are held out, G and E from their own losses."""
    recipe = recipe_of(encoder)
    objective, batch = recipe.objective, recipe.next_batch()
    for network in (recipe.G, recipe.D, recipe.E):
        network.requires_grad_(True)

    def reached(loss):
        found = set()
        for name, network in {"G": recipe.G, "D": recipe.D, "E": recipe.E}.items():
            gs = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
            found |= {name} if any(g is not None and g.abs().sum() > 0 for g in gs) else set()
        return found

    assert reached(objective.discriminator_main(batch)) == {"D"}
    assert "E" not in reached(objective.generator_main(batch)) and "E" in reached(objective.encoder_main(batch))
    held_out = dataclasses.replace(batch, held_out=torch.ones(8, dtype=torch.bool))
    assert reached(objective.encoder_main(held_out)) == set()
    assert [phase.name for phase in recipe.phases] == ["G", "D", "D R1", "E"]


@pytest.mark.parametrize("encoder", ["bigan", "vaegan"])
def test_a_resumed_run_and_its_encoder(train_run, make_config, encoder):
    options = {"encoder": encoder, "mixing_prob": 0.0, "pl_weight": 0.0}
    whole, _ = train_run(name="whole", kimg=0.048, **options)
    folder, _ = train_run(name="half", kimg=0.024, **options)
    config = make_config(kimg=0.048, snap=0.024, aug="ada", **options)
    train(config, folder, "cpu", options=RunOptions(quiet=True))
    a, b = (read_state(list_states(x)[0])[0] for x in (whole, folder))
    for part in ("G", "D", "E", "E_ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    snapshot = load_snapshot(sorted(folder.glob("snapshot-*"))[-1])
    found = load_encoder(folder / RUN_ENCODER, snapshot.G, snapshot.fingerprint)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    assert encode(found.network, snapshot.G, images).shape == (3, snapshot.G.num_ws, 8)
    mean = a["E_ema"]["common.weight"][:8]
    assert torch.equal(found.network.E.common.weight, mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "hat"}, "--recipe bigan cannot be combined with --cond"),
        ({"info": 3}, "cannot be combined with --info"),
        ({"info_continuous": 2}, "cannot be combined with --info-continuous"),
        ({"mode_weight": 1.0}, "cannot be combined: each trains an encoder"),
        ({"mixing_prob": 0.5}, "an image of two latents has no z"),
        ({"loss": "wgan", "gamma": 0.0, "mixing_prob": 0.0}, "no z belongs to an image between two others"),
    ],
)
def test_what_excludes_an_encoder(make_config, options, message):
    with pytest.raises(MisuseError, match=message):
        make_config(encoder="bigan", **options)


def test_growing_is_refused(rgb_set):
    from stylegan_cli.data.dataset import open_dataset

    with pytest.raises(MisuseError, match="--recipe vaegan cannot be combined with growing"):
        make_train_config("demo-stylegan", open_dataset(rgb_set).spec, encoder="vaegan")


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("encoder", ["bigan", "vaegan"])
def test_every_objective(make_config, make_trainer, encoder, loss):
    penalty = {"gp_weight": 0.0 if encoder == "bigan" else 10.0, "gamma": 0.0} if loss == "wgan" else {}
    engine = make_trainer(make_config(encoder=encoder, loss=loss, mixing_prob=0.0, r1_interval=1, **penalty))
    engine.step()
    assert not engine.guard.skipped, "all gradients are finite"


@pytest.mark.parametrize("cfg", ["style-r3gan", "r3gan", "dcgan", "biggan"])
def test_other_families(cfg, rgb_set):
    """Their labels are projected by one matrix, which z then is."""
    from stylegan_cli.data.dataset import open_dataset
    from stylegan_cli.training.recipes.gan import make_engine

    dataset = open_dataset(rgb_set)
    sizes = {"batch": 4, "channel_base": 64, "channel_max": 8, "z_dim": 9}
    for encoder in ("bigan", "vaegan"):
        engine = make_engine(make_train_config(cfg, dataset.spec, encoder=encoder, **sizes), dataset)
        before = engine.recipe.E.common.weight.clone()
        for _ in range(2):
            engine.step()
        assert not torch.equal(engine.recipe.E.common.weight, before)
        engine.close()
