"""Codes without labels (InfoGAN): where they enter, what recovers them, and that they are learned."""

import dataclasses
import math

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.registry import build_discriminator
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.sampling import counter
from stylegan_cli.training.losses import code_recovery
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan_plan import plan_new_run


@pytest.mark.parametrize(
    ("c_dim", "labels", "predicted"),
    [(0, "projection", 2), (3, "projection", 2), (3, "dot", 2), (3, "classifier", 5)],
)
def test_a_discriminator_predicts_codes_beside_any_labels(c_dim, labels, predicted):
    D = build_discriminator(
        LevelsDiscriminatorConfig(16, 16, c_dim=c_dim, labels=labels, codes=2, channel_base=64, channel_max=8)
    )
    x, c = torch.randn(4, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    logits, predictions = D.forward_with_classes(x, c)
    assert logits.shape == (4, 1) and predictions.shape == (4, predicted)
    assert torch.equal(D(x, c), logits) and predictions.std() > 0


def test_recovery_of_numbers():
    found = code_recovery(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    assert found.tolist() == [2.5, 0.0]


def test_both_latents_of_a_mixed_image_have_its_codes(make_config, make_trainer):
    recipe = make_trainer(make_config(info=4, info_continuous=3, mixing_prob=1.0)).recipe
    batch, seen = recipe.next_batch(), []
    recipe.G.mapping.register_forward_pre_hook(lambda m, args: seen.append(args))
    recipe.objective._latents(batch, "g")
    ((z, c),) = seen
    numbers = counter.normal(0, "info.numbers", batch.index, (3,))
    assert torch.equal(z[:8, :3], numbers) and torch.equal(z[8:, :3], numbers)
    assert not torch.equal(z[:8, 3:], z[8:, 3:])
    assert torch.equal(c[:8], batch.fake_labels) and torch.equal(c[8:], c[:8])
    assert torch.equal(batch.fake_labels.sum(1), torch.ones(8)) and not batch.labels.any()
    codes = torch.cat([recipe.next_batch().fake_labels for _ in range(50)]).mean(0)
    assert (codes - 0.25).abs().max() < 0.1  # uniform


def test_the_terms_of_the_losses(make_config, make_trainer):
    """Cross-entropy, half the squares of the numbers, and the weight; those of real images are not there."""
    recipe = make_trainer(make_config(info=4, info_continuous=2, info_weight=3.0)).recipe
    objective, batch = recipe.objective, recipe.next_batch()
    predictions = torch.randn(8, 6)
    added = objective._with_codes(torch.zeros([]), "loss/G", predictions, batch)
    chosen = (predictions[:, :4].log_softmax(1) * batch.fake_labels).sum()
    numbers = counter.normal(0, "info.numbers", batch.index, (2,))
    expected = 3 * (-chosen + (predictions[:, 4:] - numbers).square().sum() / 2)
    assert added.item() == pytest.approx(expected.item(), rel=1e-5)
    objective.means.take()
    objective.config = dataclasses.replace(objective.config, info_weight=0.0)
    other = dataclasses.replace(batch, images=batch.images.flip(0))
    for phase in ("generator_main", "discriminator_main"):
        without = getattr(objective, phase)(other)
        objective.config = dataclasses.replace(objective.config, info_weight=3.0)
        difference = getattr(objective, phase)(other) - without
        objective.config = dataclasses.replace(objective.config, info_weight=0.0)
        means = objective.means.take()
        name = "loss/G" if phase == "generator_main" else "loss/D"
        assert difference.item() == pytest.approx(24 * (means[f"{name} code"] + means[f"{name} numbers"]), rel=1e-4)
        assert not any("aux" in key for key in means)


@pytest.mark.parametrize("cfg", ["demo", "demo-stylegan2", "demo-stylegan", "progan", "demo-stylegan3"])
def test_every_family(rgb_set, make_trainer, cfg):
    tiny = {"batch": 8, "channel_base": 64, "channel_max": 8, "mbstd_channels": 1}
    if cfg in ("progan", "demo-stylegan"):
        tiny["grow_from"] = 16
    config = make_train_config(cfg, open_dataset(rgb_set).spec, info=3, info_continuous=2, **tiny)
    engine = make_trainer(config)
    engine.step()
    means = engine.means.take()
    assert means["loss/G code"] == pytest.approx(math.log(3), rel=0.5) and means["loss/D numbers"] > 0


@pytest.mark.parametrize("loss", ["wgan", "hinge"])
def test_other_objectives(make_config, make_trainer, loss):
    options = {"gp_weight": 10.0, "gamma": 0.0} if loss == "wgan" else {"r2_gamma": 1.0}
    engine = make_trainer(make_config(loss=loss, info=3, **options))
    engine.step()
    assert engine.means.take()["loss/D code"] > 0


@pytest.mark.parametrize(
    ("options", "name", "guessed"),
    [({"info": 4}, "code", math.log(4)), ({"info_continuous": 1, "info_weight": 2.0}, "numbers", 0.5)],
)
def test_codes_are_learned(make_config, make_trainer, options, name, guessed):
    """The images of noise have no kinds; the generator makes some."""
    engine = make_trainer(make_config(**options, pl_weight=0, lr=0.01))
    for _ in range(100):
        engine.step()
    engine.means.take()
    for _ in range(10):
        engine.step()
    assert engine.means.take()[f"loss/G {name}"] < 0.75 * guessed


def test_numbers_with_classes_of_the_dataset(make_config, make_trainer):
    for aux in (False, True):
        engine = make_trainer(make_config(label="hat", info_continuous=2, aux_classifier=aux))
        engine.step()
        means = engine.means.take()
        assert means["loss/G numbers"] > 0 and ("loss/G aux" in means) == aux and "loss/G code" not in means


def test_a_model_with_a_code_goes_on_with_it_or_without(train_run, rgb_set):
    folder, _ = train_run(info=3, info_continuous=2, pl_weight=0)
    start = str(latest_snapshot(folder))

    def codes(**options):
        config = plan_new_run(str(rgb_set), None, start, **options).config
        return config.info, config.generator.c_dim, config.info_continuous, config.discriminator.codes

    assert codes() == (3, 3, 2, 2) and codes(info=0) == (0, 0, 2, 2) and codes(info_continuous=0) == (3, 3, 0, 0)
    assert codes(info=0, info_continuous=0) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"info": 4, "label": "hat"}, "cannot be combined"),
        ({"info": 1}, "one value"),
        ({"info_continuous": 9}, "z has 8 numbers"),
    ],
)
def test_bad_options(make_config, options, message):
    with pytest.raises(MisuseError, match=message):
        make_config(**options)
