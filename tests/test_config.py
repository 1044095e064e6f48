"""Sizes, presets, and configurations as JSON."""

import dataclasses
import json
import math

import pytest

from stylegan_cli import config
from stylegan_cli.config import to_json
from stylegan_cli.data.dataset import DataSpec
from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import read_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.training.config import read_config
from stylegan_cli.training.presets import PRESETS, make_train_config


def data_spec(height=64, width=64, classes=()):
    return DataSpec("faces.zip", "0" * 64, 100, height, width, 3, height, width, classes=classes)


@pytest.mark.parametrize(
    ("height", "width", "base"),
    [
        (256, 256, (4, 4, 6)),
        (384, 512, (3, 4, 7)),
        (24, 48, (3, 6, 3)),
        (32, 32, (4, 4, 3)),
        (1024, 1024, (4, 4, 8)),
        (96, 512, (3, 16, 5)),
    ],
)
def test_base_size(height, width, base):
    assert config.base_size(height, width) == base
    assert (base[0] << base[2], base[1] << base[2]) == (height, width)


@pytest.mark.parametrize("size", [(31, 47), (0, 0), (2, 2), (3, 3), (100, 2000), (64, 1024)])
def test_the_message_for_an_invalid_size_lists_the_nearest(size):
    with pytest.raises(SganError, match=f"{size[0]}x{size[1]}") as caught:
        config.base_size(*size)
    sizes = config.nearest_sizes(*size)
    assert sizes and all(config.base_size(*s) for s in sizes)
    assert all(f"{h}x{w}" in caught.value.hint for h, w in sizes)


def test_no_valid_size_is_nearer_than_the_nearest():
    def distance(size):
        return abs(size[0] - 31) + abs(size[1] - 47)

    nearest = config.nearest_sizes(31, 47)[0]
    for h in range(20, 60):
        for w in range(20, 60):
            if config._split(h, w) is not None:
                assert distance(nearest) <= distance((h, w))


@pytest.mark.parametrize("cfg", PRESETS)
@pytest.mark.parametrize("size", [(64, 64), (512, 384)])
def test_json_round_trip(cfg, size):
    settings = make_train_config(cfg, data_spec(*size, classes=("cat", "dog")))
    values = json.loads(json.dumps(config.to_json(settings)))
    assert read_config(values) == read_config({"recipe": "gan", **values}) == settings


def test_settings_of_another_recipe():
    with pytest.raises(SganError, match="settings belong to the recipe 'encoder', not to 'gan'"):
        read_config({"recipe": "encoder", "kimg": 1.0})


def test_rules_of_the_auto_preset():
    small = make_train_config("auto", data_spec(256, 256), gpus=2)
    assert (small.batch, small.batch_gpu, small.discriminator.mbstd_group) == (32, 16, 4)
    assert (small.generator.channel_base, small.lr) == (16384, 0.0025)
    assert small.gamma == pytest.approx(0.0002 * 256 * 256 / 32)
    assert small.ema_kimg == pytest.approx(10)
    large = make_train_config("auto", data_spec(1024, 1024), gpus=8)
    assert (large.batch, large.generator.channel_base, large.lr) == (32, 32768, 0.002)


def test_options_override_the_preset_unless_none():
    settings = make_train_config("paper256", data_spec(256, 256), batch=8, gamma=3.5, lr=None, channel_base=4096)
    assert make_train_config("auto", data_spec(256, 256), lr=0.0).lr == 0, "zero is a valid value"
    assert (settings.batch, settings.gamma, settings.lr) == (8, 3.5, 0.0025)
    assert settings.generator.channel_base == settings.discriminator.channel_base == 4096


def test_channel_options_are_those_of_both_networks():
    """Also if the preset has other channels for the generator."""
    networks = {"channel_base": 256, "channel_max": 8}
    settings = make_train_config("demo-stylegan3", data_spec(32, 32), **networks)
    for network in (settings.generator, settings.discriminator):
        assert (network.channel_base, network.channel_max) == (256, 8)
    assert settings.generator.num_layers == 8


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StyleGAN2Config(64, 64).height = 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 1}, "unknown field.*speed"),
        ({"height": "64"}, "StyleGAN2Config.height: expected int"),
        ({"height": True}, "StyleGAN2Config.height: expected int"),
        ({"fir": 3}, "StyleGAN2Config.fir: expected a list"),
        ({"architecture": "vgg"}, "vgg"),
        ({"channels": 2}, "one of 1, 3, 4, not 2"),
        ({"height": 31}, "31x64"),
    ],
)
def test_invalid_json(change, message):
    values = {**config.to_json(StyleGAN2Config(64, 64)), **change}
    with pytest.raises(SganError, match=message):
        read_generator(values)


@pytest.mark.parametrize("values", [{}, {"height": 64}, [], None])
def test_incomplete_json(values):
    with pytest.raises(SganError, match="GeneratorConfig|StyleGAN2Config"):
        read_generator(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 6, "batch_gpu": 4}, "not a multiple"), ({"batch": 8, "batch_gpu": 5}, "not a multiple")],
)
def test_indivisible_batches(options, message):
    with pytest.raises(SganError, match=message):
        make_train_config("auto", data_spec(), **options)


def test_unknown_preset():
    with pytest.raises(SganError, match="paper128") as caught:
        make_train_config("paper128", data_spec())
    assert "paper256" in caught.value.hint


@pytest.mark.parametrize("gpus", range(1, 9))
@pytest.mark.parametrize("cfg", ["auto", "demo", "demo-stylegan2"])
def test_presets_work_with_any_number_of_gpus(cfg, gpus):
    config = make_train_config(cfg, DataSpec("a", "", 1, 256, 256, 3, 256, 256), gpus=gpus)
    assert config.batch % gpus == 0 and config.batch_gpu % (config.discriminator.batch_group or 1) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": -4, "batch_gpu": -4},
        {"batch_gpu": 0},
        {"r1_interval": 0},
        {"kimg": math.nan},
        {"betas": [0.0, 1.0]},
        {"r2_gamma": -1.0},
        {"loss": "wgan", "gamma": 0.0, "aug": "noaug", "gp_weight": math.inf},
        {"drift": math.nan},
        {"aux_weight": -1.0},
    ],
)
def test_out_of_range_settings(changes):
    config = make_train_config("auto", DataSpec("a", "", 1, 64, 64, 3, 64, 64))
    with pytest.raises(SganError):
        read_config({**to_json(config), **changes})


# -------------------------------------------------------------------------------------------- objectives


def test_wgan_applies_its_penalty_at_every_step():
    settings = make_train_config("auto", data_spec(), loss="wgan")
    assert (settings.gamma, settings.gp_weight, settings.r1_interval, settings.aug) == (0, 10, 1, "noaug")
    settings = make_train_config("auto", data_spec(), loss="wgan", gp_weight=3.0, r1_interval=4, aug="diffaug")
    assert (settings.gp_weight, settings.r1_interval, settings.aug) == (3, 4, "diffaug")


def test_other_objectives_keep_the_settings_of_the_preset():
    default = make_train_config("auto", data_spec())
    assert (default.loss, default.gp_weight, default.r1_interval, default.aug) == ("logistic", 0, 16, "ada")
    assert make_train_config("auto", data_spec(), loss="hinge") == dataclasses.replace(default, loss="hinge")


def test_aux_classifier():
    settings = make_train_config("auto", data_spec(classes=("cat", "dog")), aux_classifier=True)
    assert (settings.discriminator.labels, settings.discriminator.c_dim) == ("classifier", 2)
    settings = make_train_config("auto", data_spec(classes=("cat", "dog")), aux_classifier=False)
    assert settings.discriminator.labels == "projection"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "wasserstein"}, "one of logistic, .*wgan.*, not 'wasserstein'"),
        ({"loss": "wgan", "gamma": 1.0}, "not R1 or R2"),
        ({"loss": "wgan", "r2_gamma": 1.0}, "not R1 or R2"),
        ({"loss": "hinge", "gp_weight": 1.0}, "hinge uses R1 and R2"),
        ({"loss": "wgan", "aug": "ada"}, "no boundary"),
        ({"aux_classifier": True}, "needs labels"),
    ],
    ids=lambda x: " ".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_settings_that_an_objective_does_not_support(options, message):
    with pytest.raises(SganError, match=message):
        make_train_config("auto", data_spec(), **options)
