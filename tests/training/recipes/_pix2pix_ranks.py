"""Fits the same translator on a number of ranks in float64 and saves the results; a script for test_pix2pix.py.

python _pix2pix_ranks.py IMAGES SOURCE OUT.pt RANKS
"""

import dataclasses
import sys

import torch

from stylegan_cli import distributed
from stylegan_cli.training.engine import Engine
from stylegan_cli.training.recipes.pix2pix import Pix2PixRecipe
from stylegan_cli.training.recipes.pix2pix_run import plan_new_pix2pix
from stylegan_cli.training.state import gather


class Double(Pix2PixRecipe):
    """In float64, so that sums in another order are equal."""

    def next_batch(self):
        batch = super().next_batch()
        return dataclasses.replace(batch, images=batch.images.double())


def work(data, source, out, ranks):
    plan = plan_new_pix2pix(data, source, kimg=0.4, batch=8, held_out=4, gpus=ranks)
    recipe = Double(plan.config, plan.dataset)
    for network in recipe.networks.values():
        network.double()
    engine = Engine(recipe)
    for _ in range(6):
        engine.step()
    results = {"state": gather(engine.stateful), "means": engine.means.take(), "world": distributed.world_size()}
    engine.close()
    if distributed.rank() == 0:
        torch.save(results, out)


if __name__ == "__main__":
    distributed.launch(work, (*sys.argv[1:4], int(sys.argv[4])), int(sys.argv[4]))
