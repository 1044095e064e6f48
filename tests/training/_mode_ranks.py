"""Trains runs with an encoder on a number of ranks and saves their weights; a script for test_modes.py.

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
    weights = {}
    for name, options in {"modes": {"mode_weight": 1.0}, "bigan": {}, "vaegan": {}}.items():
        options |= {} if name == "modes" else {"encoder": name, "pl_weight": 0.0}
        config = make_train_config("auto", dataset.spec, gpus=ranks, ema_kimg=0.1, **sizes, **options)
        engine = make_engine(config, dataset, dtype=torch.float64)
        for _ in range(10):
            engine.step()
        engine.close()
        for part, network in engine.recipe.networks.items():
            weights |= {f"{name}.{part}.{k}": x for k, x in network.state_dict().items()}
    if distributed.rank() == 0:
        torch.save(weights, out)


if __name__ == "__main__":
    distributed.launch(work, (sys.argv[1], sys.argv[2], int(sys.argv[3])), int(sys.argv[3]))
