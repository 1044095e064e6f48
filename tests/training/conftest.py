"""Runs whose steps take milliseconds."""

import pytest

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import gan
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions

QUIET = RunOptions(quiet=True)


@pytest.fixture(autouse=True)
def few_images_for_standing_statistics(monkeypatch):
    """Runs of milliseconds would spend seconds on those of each snapshot."""
    monkeypatch.setattr(gan, "STANDING", 64)


@pytest.fixture
def make_config(rgb_set):
    """Settings of a tiny run on 16 x 16 images: make_config(batch=..., ...) -> TrainConfig."""

    def make(label=None, mirror=True, **options):
        spec = open_dataset(rgb_set, mirror=mirror, label=label).spec
        tiny = {"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}
        frequent = {"mbstd_group": 2, "gamma": 2.0, "r1_interval": 2, "pl_interval": 2, "ema_kimg": 0.05}
        return make_train_config("auto", spec, **tiny | frequent | options)

    return make


@pytest.fixture
def make_trainer(rgb_set):
    """Engines that are closed after the test: make_trainer(config) -> Engine."""
    from stylegan_cli.training.recipes.gan import make_engine

    trainers = []

    def make(config, **options):
        dataset = open_dataset(rgb_set, mirror=config.data.mirror, label=config.data.label)
        trainers.append(make_engine(config, dataset, **options))
        return trainers[-1]

    yield make
    for trainer in trainers:
        trainer.close()


@pytest.fixture
def train_run(make_config, tmp_path):
    """Train a new tiny run: train_run(kimg=..., ...) -> its folder and configuration."""

    def train_run(options=QUIET, name="run", **settings):
        config = make_config(**{"kimg": 0.048, "snap": 0.024, "aug": "ada"} | settings)
        (tmp_path / name).mkdir()
        train(config, tmp_path / name, "cpu", options=options)
        return tmp_path / name, config

    return train_run
