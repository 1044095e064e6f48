"""Trains a run with mode regularization on a number of ranks and saves its weights; a script for test_modes.py.

python _mode_ranks.py DATA.zip OUT.pt RANKS
"""

import sys

import torch

from stylegan_cli import distributed
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import make_engine


def work(path, out, ranks):
    dataset = open_dataset(path, size=(8, 8), mirror=True)
    sizes = {"batch": 8, "mbstd_group": 2, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8}
    config = make_train_config("auto", dataset.spec, gpus=ranks, mode_weight=1.0, ema_kimg=0.1, **sizes)
    engine = make_engine(config, dataset, dtype=torch.float64)
    for _ in range(10):
        engine.step()
    engine.close()
    if distributed.rank() == 0:
        networks = engine.recipe.networks
        torch.save({f"{name}.{k}": x for name in networks for k, x in networks[name].state_dict().items()}, out)


if __name__ == "__main__":
    distributed.launch(work, (sys.argv[1], sys.argv[2], int(sys.argv[3])), int(sys.argv[3]))
